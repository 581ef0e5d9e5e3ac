"""Towers of open_clip, and the models that the tests of other libraries use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import nn

from place_models import PlaceModel, Size

_SIZES: tuple[Size, ...] = ((64, 64), (64, 96))
_TEXT = CLIPTextCfg(context_length=8, vocab_size=32, width=16, heads=2, layers=1)
_TESTS = Path(__file__).parents[1] / "tests" / "libraries"


def models() -> Iterator[PlaceModel]:
    """Yield every model."""
    yield from _of_tests()
    for name, settings in _OPEN_CLIP.items():
        for size in _SIZES:
            image_size = size if "patch_size" in settings else size[0]
            build = partial(_tower, image_size, settings)
            optional = size[0] != size[1]
            yield PlaceModel("open_clip", name, build, size, _first, optional=optional)


def _of_tests() -> Iterator[PlaceModel]:
    sys.path.insert(0, str(_TESTS))
    from library_models import MODELS

    for name, model in MODELS.items():
        yield PlaceModel("tests", name, model.build, (64, 64), model.scores)


_VIT = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
_OPEN_CLIP: dict[str, dict[str, Any]] = {
    "vit": _VIT,
    "vit-8": {**_VIT, "patch_size": 8},
    "vit-average": {**_VIT, "pool_type": "avg", "final_ln_after_pool": True},
    "vit-no-first-norm": {**_VIT, "no_ln_pre": True},
    "vit-sine": {**_VIT, "pos_embed_type": "sin_cos_2d"},
    "vit-patch-dropout": {**_VIT, "patch_dropout": 0.5},
    "coca-tower": {**_VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "attention-pool-no-class": {**_VIT, "attentional_pool": True, "attn_pooler_queries": 9},
    "resnet": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 16},
    "resnet-deeper": {"layers": [2, 2, 2, 2], "width": 16, "head_width": 16},
    "timm-vit": {"timm_model_name": "test_vit", "timm_pool": "avg"},
    "timm-resnet": {"timm_model_name": "test_resnet", "timm_pool": "avg"},
    "timm-convnext": {"timm_model_name": "test_convnext", "timm_pool": "avg"},
}


def _tower(image_size: int | Size, settings: dict[str, Any]) -> nn.Module:
    vision = CLIPVisionCfg(image_size=image_size, **settings)
    tower: nn.Module = CLIP(24, vision, _TEXT, quick_gelu=False).visual
    return tower


def _first(output: Any) -> Any:
    """Return the embedding, which comes first if there are tokens beside it."""
    return output[0] if isinstance(output, tuple) else output
