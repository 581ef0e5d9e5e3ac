"""Attention is read off fused and eager attention alike; who has none is told so."""

import pytest
import timm
import torch
from timm.models.vision_transformer import Block
from torch import nn

from libragrad_lightning.attribution import METHODS, probability
from libragrad_lightning.attribution.capture import capture
from libragrad_lightning.attribution.explaining import explain_tokens
from libragrad_lightning.attribution.rewards import reward_gradient
from libragrad_lightning.backward import LIBRA, PLAIN, LibraGradError
from libragrad_lightning.models import explanation_state, read_token_model

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()


def random_model(name="vit_tiny_patch16_224", **kwargs):
    model = timm.create_model(name, num_classes=5, **SMALL, **kwargs).eval().double()
    for p in model.parameters():
        p.data.normal_(0, 0.3)
    return model


def explained(model, method):
    with explanation_state(model):
        return explain_tokens(
            read_token_model(model, IMAGES),
            IMAGES,
            rules=(PLAIN, LIBRA),
            method=METHODS[method],
            reward=probability,
        )


@pytest.mark.parametrize("method", METHODS)
def test_fused_and_eager_attention_give_the_same_maps(method):
    torch.manual_seed(1)
    model = random_model()
    fused = explained(model, method)
    for block in model.blocks:
        block.attn.fused_attn = False
    eager = explained(model, method)
    for a, b in zip(fused, eager, strict=True):
        assert a.attribution.isfinite().all()
        assert a.attribution.shape == (3, 4, 4)
        torch.testing.assert_close(a.attribution, b.attribution, rtol=1e-9, atol=1e-15)


NEED_A_CLASS_TOKEN = ("raw_attention", "attention_rollout", "genatt", "gradsam", "tokentm")


@pytest.mark.parametrize("method", METHODS)
def test_models_without_a_class_token_are_explained_or_refused(method):
    model = random_model("vit_base_patch16_siglip_224")
    if method in NEED_A_CLASS_TOKEN:
        with pytest.raises(LibraGradError, match=r"no class token.*choose another `method`"):
            explained(model, method)
    else:
        assert all(e.attribution.isfinite().all() for e in explained(model, method))


class NoAttention(torch.nn.Module):
    def forward(self, x, **kwargs):
        return x


def test_a_block_without_attention_is_named_by_its_count():
    model = random_model()
    model.blocks[1].attn = NoAttention()
    with pytest.raises(LibraGradError, match=r"blocks have \[1, 0, 1\].*'fullgrad_plus'"):
        explained(model, "attcat")


@pytest.mark.parametrize("method", METHODS)
def test_a_model_with_one_block_is_explained_or_refused(method):
    torch.manual_seed(1)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **(SMALL | {"depth": 1}))
    model = model.eval().double()
    if method == "attcat":
        with pytest.raises(LibraGradError, match=r"this model has one block; choose another `meth"):
            explained(model, method)
    else:
        assert all(e.attribution.isfinite().all() for e in explained(model, method))


class Merging(nn.Module):
    """Two blocks on 4 x 4 patches, then two on 2 x 2, with a class token all along."""

    def __init__(self):
        super().__init__()
        self.patches, self.first = nn.Conv2d(3, 8, 8, 8), nn.Parameter(torch.zeros(1, 1, 8))
        self.fine = nn.Sequential(Block(8, 2), Block(8, 2))
        self.merge = nn.Linear(32, 8)
        self.coarse = nn.Sequential(Block(8, 2), Block(8, 2))
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = self.fine(torch.cat([self.first.expand(len(images), -1, -1), tokens], 1))
        squares = tokens[:, 1:].unflatten(1, (2, 2, 2, 2)).transpose(2, 3)
        merged = self.merge(squares.reshape(len(images), 4, 32))
        return self.head(self.coarse(torch.cat([tokens[:, :1], merged], 1))[:, 0])


def merging_model():
    torch.manual_seed(1)
    model = Merging().eval().double()
    for p in model.parameters():
        p.data.normal_(0, 0.4)
    return model


def test_attention_over_fewer_tokens_is_spread_over_the_patches_that_they_stand_for():
    model = merging_model()
    received = []

    def look(attention, args):
        normed = args[0]
        q, k, _ = attention.qkv(normed).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        received.append((q @ k.mT / 2).softmax(-1).mean(1)[:, 0])

    for block in [*model.fine, *model.coarse]:
        block.attn.register_forward_pre_hook(look)
    with torch.no_grad():
        model(IMAGES)
    coarse = received[-1]
    for explanation in explained(model, "raw_attention"):
        torch.testing.assert_close(explanation.prefix, coarse[:, :1])
        spread = coarse[:, 1:].view(3, 2, 2).repeat_interleave(2, 1).repeat_interleave(2, 2) / 4
        torch.testing.assert_close(explanation.attribution, spread)


def test_gradsam_adds_up_the_rows_of_all_grids():
    model = merging_model()
    maps = explained(model, "gradsam")[0]
    read = read_token_model(model, IMAGES)
    with explanation_state(model):
        recording = read.record(IMAGES)
        gradient = reward_gradient(recording.logits.detach(), maps.target, probability)
        captured = capture(recording, gradient, PLAIN, attention=True)
    rows = [(a.weights * a.gradients).relu().mean(1)[:, 0] for a in captured.attention]
    fine, coarse = rows[0] + rows[1], rows[2] + rows[3]
    spread = coarse[:, 1:].view(3, 2, 2).repeat_interleave(2, 1).repeat_interleave(2, 2) / 4
    torch.testing.assert_close(maps.attribution, fine[:, 1:].view(3, 4, 4) + spread)
    torch.testing.assert_close(maps.prefix, fine[:, :1] + coarse[:, :1])


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("attcat", r"number of tokens changes \(\[17, 5\]\); choose another `method`"),
        ("attention_rollout", r"number of tokens changes \(\[17, 5\]\); choose another `method`"),
        ("genatt", r"number of tokens changes \(\[17, 5\]\); choose another `method`"),
        ("tokentm", r"\[T, D\] is \[\(17, 8\), \(5, 8\)\]\); choose another `method`"),
    ],
)
def test_methods_that_follow_tokens_need_the_same_ones_in_all_blocks(method, sentence):
    with pytest.raises(LibraGradError, match=sentence):
        explained(merging_model(), method)
