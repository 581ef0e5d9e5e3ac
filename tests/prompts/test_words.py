"""Words have the relevance that theory gives them, and name what cannot be explained."""

import pytest
import torch
import torch.nn.functional as F
from prompt_models import CONTEXT, PROMPTS, TOKENIZER, image_tower
from test_text_prompts import BATCH, SMALL, TEMPLATES, clip, towers  # noqa: F401
from torch import nn

from libragrad_lightning.prompts import PromptError, explain_words, text_prompts


def normalized(norm, x):
    """A layer norm whose deviation is a constant."""
    centered = x - x.mean(-1, keepdim=True)
    deviation = (centered.square().mean(-1, keepdim=True) + norm.eps).sqrt().detach()
    return centered / deviation * norm.weight + norm.bias


def attended(attention, x):
    """Self-attention whose weights are constants."""
    queries, keys, values = (
        t.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for t in F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
    )
    weights = (queries @ keys.mT / attention.head_dim**0.5).softmax(-1).detach()
    return attention.out_proj((weights @ values).transpose(1, 2).flatten(2))


def gated(x):
    """GELU whose gate is a constant."""
    return x * (0.5 * (1 + torch.erf(x / 2**0.5))).detach()


def balanced(tower, tokens):
    """The text tower with all that LibraGrad holds constant detached, and a constant length."""
    for layer in tower.blocks.layers:
        tokens = tokens + attended(layer.self_attn, normalized(layer.norm1, tokens))
        inner = gated(layer.linear1(normalized(layer.norm2, tokens)))
        tokens = tokens + layer.linear2(inner)
    texts = tower.head(tokens.mean(1))
    return texts / texts.norm(dim=-1, keepdim=True).detach()


def test_words_under_libra_are_those_of_a_detached_twin(towers):  # noqa: F811
    images, texts = (tower.double().eval() for tower in towers)
    prompts = text_prompts((images, texts), TOKENIZER, PROMPTS).eval()
    for parameter in prompts.parameters():
        nn.init.normal_(parameter, std=0.3)
    found = explain_words(prompts, SMALL.double(), method="input_x_gradient")
    features = F.normalize(images(SMALL.double()), dim=-1).detach()
    tokens = (texts.embedding(TOKENIZER(list(PROMPTS))) + texts.positions).detach()
    for number, image in enumerate(features):
        leaf = tokens.clone().requires_grad_()
        scores = 100 * balanced(texts, leaf) @ image
        torch.testing.assert_close(scores, found.scores[number])
        (gradient,) = torch.autograd.grad(scores.sum(), leaf)
        torch.testing.assert_close(found.relevance[number], (leaf * gradient).sum(2).detach())


class Bag(nn.Module):
    """Embeds a text as the mean of maps of its words."""

    def __init__(self):
        super().__init__()
        self.embedding, self.map = nn.Embedding(49408, 12), nn.Linear(12, 16)

    def forward(self, ids):
        return self.map(self.embedding(ids)).mean(1)


def test_words_of_a_bag_have_the_relevance_of_their_own_similarity():
    torch.manual_seed(0)
    bag, tower = Bag().double(), image_tower().double().eval()
    found = explain_words(text_prompts((tower, bag), TOKENIZER, PROMPTS), SMALL.double())
    ids = TOKENIZER(list(PROMPTS))
    features = F.normalize(tower(SMALL.double()), dim=-1)
    norms = bag(ids).norm(dim=-1)
    each = bag.map(bag.embedding(ids)) / (CONTEXT * norms[:, None, None])
    expected = 100 * torch.einsum("bd,pld->bpl", features, each)
    torch.testing.assert_close(found.relevance, expected.detach())
    torch.testing.assert_close(found.elsewhere, torch.zeros_like(found.elsewhere))


def test_words_of_averaged_prompts_are_refused_and_those_of_one_template_are_not():
    model = clip()
    with pytest.raises(PromptError, match=r"mean of 3 texts.*pass one of the `templates`"):
        explain_words(text_prompts(model, TOKENIZER, PROMPTS, templates=TEMPLATES), BATCH)
    one = text_prompts(model, TOKENIZER, ["cat"], templates=TEMPLATES[:1])
    words = [word for word, _ in explain_words(one, BATCH).words(0, 0)]
    assert words == ["a", "photo", "of", "a", "cat", "."]


def test_words_need_an_embedding_and_work_with_one():
    model = clip()
    pair = (model.encode_image, model.encode_text)
    with pytest.raises(
        PromptError, match=r"No `torch.nn.Embedding`.*pass the text encoder as a mod"
    ):
        explain_words(text_prompts(pair, TOKENIZER, PROMPTS), BATCH)
    assert explain_words(text_prompts(model, TOKENIZER, PROMPTS), BATCH).scores.shape == (3, 4)


def test_words_of_a_written_transformer_add_up(towers):  # noqa: F811
    prompts = text_prompts(tuple(t.double() for t in towers), TOKENIZER, PROMPTS)
    for parameter in prompts.parameters():
        nn.init.normal_(parameter, std=0.2)
    found = explain_words(prompts, SMALL.double())
    assert ((found.relevance.sum(2) + found.elsewhere) / found.scores - 1).abs().max() < 1e-11
    by_plus = explain_words(prompts, SMALL.double(), method="fullgrad_plus")
    assert not torch.allclose(found.relevance, by_plus.relevance)
