"""Prompts score as libraries do, are encoded when they must be, and name what cannot work."""

import copy
import functools

import open_clip
import pytest
import torch
import torch.nn.functional as F
import transformers
from prompt_models import (
    CONTEXT,
    MODELS,
    PROMPTS,
    TOKENIZER,
    TextTower,
    image_tower,
    images,
    letters,
    randomized,
)
from torch import nn

from libragrad_lightning import explain
from libragrad_lightning.models import UnreadableModelError
from libragrad_lightning.prompts import text_prompts

TEMPLATES = ("a photo of a {}.", "a drawing of a {}.", "{}")


@functools.cache
def clip():
    return randomized("open_clip-vit").double()


BATCH = images("open_clip-vit", 3, dtype=torch.float64)
SMALL = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def towers():
    torch.manual_seed(0)
    return image_tower(), TextTower()


def test_scores_are_those_of_open_clip():
    model = clip()
    prompts = text_prompts(model, TOKENIZER, PROMPTS, templates=TEMPLATES, scale=100)
    templates = [functools.partial(lambda form, name: form.format(name), t) for t in TEMPLATES]
    classifier = open_clip.build_zero_shot_classifier(model, TOKENIZER, PROMPTS, templates)
    expected = 100 * model.encode_image(BATCH, normalize=True) @ classifier
    torch.testing.assert_close(prompts(BATCH), expected)
    assert "scores=100 * cosine, prompts=4, templates=3" in repr(prompts)


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_the_model(name):
    model, batch = randomized(name), images(name, 1)
    tokenizer = MODELS[name].tokenizer()
    prompts = text_prompts(model, tokenizer, PROMPTS)
    if name.startswith("open_clip"):
        features = model.encode_image(batch, normalize=True)
        texts = model.encode_text(tokenizer(list(PROMPTS)), normalize=True)
        bias = 0 if model.logit_bias is None else model.logit_bias
        expected = model.logit_scale.exp() * features @ texts.T + bias
    else:
        given = tokenizer(list(PROMPTS), padding="max_length", max_length=CONTEXT)
        given = {k: torch.tensor(v) for k, v in given.items()}
        expected = model(**given, **pixels(name, batch)).logits_per_image
    torch.testing.assert_close(prompts(batch), expected, rtol=1e-4, atol=1e-4)


def pixels(name, batch):
    if not name.endswith("siglip2"):
        return {"pixel_values": batch}
    convert = transformers.models.siglip2.image_processing_siglip2.convert_image_to_patches
    return {
        "pixel_values": torch.stack([convert(image, 8) for image in batch]),
        "pixel_attention_mask": torch.ones(len(batch), 16, dtype=torch.int64),
        "spatial_shapes": torch.tensor([[4, 4]] * len(batch)),
    }


def test_maps_are_those_of_similarities_written_by_hand():
    model = clip()
    texts = model.encode_text(TOKENIZER(list(PROMPTS)), normalize=True).detach()

    def forward(batch):
        return 50 * F.normalize(model.encode_image(batch), dim=-1) @ texts.T

    prompts = text_prompts(model, TOKENIZER, PROMPTS, scale=50)
    expected = explain(model, BATCH, forward=forward, target=2, reward="logit")
    for found in (
        explain(prompts, BATCH, target=2),
        explain(model, BATCH, forward=prompts, target=2),
        explain(text_prompts(model, TOKENIZER, PROMPTS[2:3], scale=50), BATCH),
    ):
        torch.testing.assert_close(found.attribution, expected.attribution)
    contrast = explain(prompts, BATCH, target=2, task="multiclass").attribution
    assert not torch.allclose(contrast, expected.attribution)


def test_prompts_of_functions_need_the_model_that_is_explained():
    model = clip()
    pair = (lambda batch: model.encode_image(batch), lambda ids: model.encode_text(ids))
    prompts = text_prompts(pair, TOKENIZER, PROMPTS)
    expected = explain(text_prompts(model, TOKENIZER, PROMPTS, scale=100), BATCH)
    found = explain(model, BATCH, forward=prompts)
    torch.testing.assert_close(found.attribution, expected.attribution)


class Encodings:
    """Counts how often texts are encoded."""

    def __init__(self, tower):
        self.count = 0
        tower.register_forward_pre_hook(lambda *_: setattr(self, "count", self.count + 1))


def encoded_again(prompts, batch=SMALL):
    counter = Encodings(prompts.model[1])
    prompts(batch)
    return counter.count > 0


def test_texts_are_encoded_once(towers):
    prompts = text_prompts(towers, TOKENIZER, PROMPTS).eval()
    with torch.inference_mode():
        assert encoded_again(prompts)
        assert not encoded_again(prompts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prompts(SMALL)
    prompts.train()(SMALL).sum().backward()
    assert all(p.grad is None for p in towers[1].parameters())
    assert towers[1].training
    explain(prompts, SMALL)
    assert not encoded_again(prompts)


@torch.no_grad()
def written(parameter):
    parameter.mul_(1.5)


def written_behind_autograd(parameter):
    parameter.data = parameter.data + 0.1


def written_through_data(parameter):
    parameter.data.add_(0.1)


@pytest.mark.parametrize("write", [written, written_behind_autograd, written_through_data])
def test_texts_are_encoded_again_when_their_weights_change(towers, write):
    prompts = text_prompts(towers, TOKENIZER, PROMPTS).eval()
    before = prompts(SMALL)
    write(towers[0].head.weight)
    assert not encoded_again(prompts)
    write(towers[1].blocks.layers[0].linear1.weight)
    assert encoded_again(prompts)
    fresh = text_prompts(towers, TOKENIZER, PROMPTS).eval()
    torch.testing.assert_close(prompts(SMALL), fresh(SMALL), rtol=0, atol=0)
    assert not torch.equal(prompts(SMALL), before)


def test_texts_are_encoded_again_when_weights_are_exchanged_or_moved(towers):
    prompts = text_prompts(towers, TOKENIZER, PROMPTS).eval()
    prompts(SMALL)
    towers[1].head.weight = nn.Parameter(towers[1].head.weight + 1)
    assert encoded_again(prompts)
    towers[1].load_state_dict({k: v + 0.1 for k, v in towers[1].state_dict().items()})
    assert encoded_again(prompts)
    copied = copy.deepcopy(prompts)
    torch.testing.assert_close(copied(SMALL), prompts(SMALL), rtol=0, atol=0)
    assert prompts.double()(SMALL.double()).dtype is torch.float64


class Placed(TextTower):
    """Looks its positions up before its tokens."""

    def __init__(self):
        super().__init__()
        self.placed = nn.Embedding(49408, 24)

    def forward(self, ids):
        self.placed(torch.arange(ids.shape[1]))
        self.placed(torch.arange(ids.shape[1])[None])
        return super().forward(ids)


def test_the_embedding_of_tokens_is_told_from_that_of_positions():
    tower = Placed()
    prompts = text_prompts((image_tower(), tower), TOKENIZER, PROMPTS)
    assert prompts.embedding is tower.embedding


def test_prompts_say_what_their_scores_are(towers):
    def said(model, **kwargs):
        return repr(text_prompts(model, TOKENIZER, PROMPTS, **kwargs)).splitlines()[1].strip()

    assert said(towers) == "scores=100 * cosine, prompts=4, templates=1"
    assert said(towers, scale=2.5) == "scores=2.5 * cosine, prompts=4, templates=1"
    assert said(clip()) == "scores=logit_scale.exp() * cosine, prompts=4, templates=1"
    assert said(clip(), scale=7) == "scores=7 * cosine, prompts=4, templates=1"
    biased = randomized("transformers-siglip2")
    tokenizer = MODELS["transformers-siglip2"].tokenizer()
    assert "logit_scale.exp() * cosine + logit_bias" in repr(
        text_prompts(biased, tokenizer, PROMPTS)
    )


def test_many_prompts_are_encoded_in_parts(towers):
    many = [f"a {word} {number}" for number in range(100) for word in ("dog", "cat", "boat")]
    prompts = text_prompts(towers, TOKENIZER, many).eval()
    with torch.no_grad():
        expected = F.normalize(towers[1].eval()(TOKENIZER(many)), dim=-1)
    found = prompts.text_embeddings(torch.device("cpu"), torch.float32)
    torch.testing.assert_close(found, expected)


def test_what_is_left_of_whole_patches_is_cut_off():
    model, batch = randomized("transformers-siglip2"), images("transformers-siglip2", 2)
    prompts = text_prompts(model, MODELS["transformers-siglip2"].tokenizer(), PROMPTS)
    wide = F.pad(batch, (0, 3, 0, 5), value=7.0)
    torch.testing.assert_close(prompts(wide), prompts(batch))


def test_making_prompts_disturbs_nothing(towers):
    for tower in towers:
        tower.train()
    state = torch.get_rng_state()
    text_prompts(towers, TOKENIZER, PROMPTS)
    assert torch.equal(state, torch.get_rng_state())
    assert all(m.training for tower in towers for m in tower.modules())


def test_a_model_of_images_and_texts_is_told_how_to_pass_prompts():
    for name, tokenizer in (("open_clip-vit", TOKENIZER), ("transformers-clip", letters())):
        model, batch = randomized(name), images(name, 1)
        with pytest.raises(
            UnreadableModelError, match=r"text_prompts\(model, tokenizer, prompts\)"
        ):
            explain(model, batch)
        assert explain(text_prompts(model, tokenizer, ["dog"]), batch).attribution.dim() == 3
