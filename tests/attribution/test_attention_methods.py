"""Attention is read off fused and written-out attention alike; who has none is told so."""

import pytest
import timm
import torch

from libragrad_lightning.attribution import METHODS, explain_tokens, probability
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
def test_fused_and_written_out_attention_give_the_same_maps(method):
    torch.manual_seed(1)
    model = random_model()
    fused = explained(model, method)
    for block in model.blocks:
        block.attn.fused_attn = False
    written_out = explained(model, method)
    for a, b in zip(fused, written_out, strict=True):
        assert a.attribution.isfinite().all()
        assert a.attribution.shape == (3, 4, 4)
        torch.testing.assert_close(a.attribution, b.attribution, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("method", METHODS)
def test_models_without_a_class_token_are_explained_or_refused(method):
    model = random_model("vit_base_patch16_siglip_224")
    if method in ("raw_attention", "attention_rollout", "genatt", "gradsam", "tokentm"):
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
