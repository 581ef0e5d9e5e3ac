"""Models of torchvision and open_clip, and those that the tests of other libraries use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torchvision
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from place_models import PlaceModel, Size
from torch import nn

_CLASSES = 7
_SIZES: tuple[Size, ...] = ((64, 64), (64, 96))
_TEXT = CLIPTextCfg(context_length=8, vocab_size=32, width=16, heads=2, layers=1)
_TESTS = Path(__file__).parents[1] / "tests" / "libraries"


def models() -> Iterator[PlaceModel]:
    """Yield every model."""
    yield from _of_tests()
    for name, *own in _TORCHVISION:
        for size in own or _SIZES:
            yield PlaceModel("torchvision", name, partial(_torchvision, name), size)
    for name, build in _own_shapes():
        for size in _SIZES:
            square = size[0] == size[1]
            yield PlaceModel("torchvision", name, build, size, optional=not square)
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


_TORCHVISION: tuple[tuple[Any, ...], ...] = (
    *((name,) for name in """
        convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s mnasnet0_5 mobilenet_v2
        mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet50 resnext50_32x4d
        wide_resnet50_2 shufflenet_v2_x0_5 squeezenet1_0 squeezenet1_1 swin_t vgg11 vgg11_bn
        googlenet alexnet
    """.split()),
    ("swin_v2_t", (64, 64), (64, 96), (80, 64)),
    ("inception_v3", (96, 96), (96, 128)),
    ("maxvit_t", (224, 224)),
)  # fmt: skip


def _torchvision(name: str) -> nn.Module:
    auxiliary = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = torchvision.models.get_model(name, weights=None, **auxiliary)
    return model


def _own_shapes() -> Iterator[tuple[str, partial[nn.Module]]]:
    """Yield small members of families whose members are all large, and rarer shapes."""
    shape = {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 48, "num_classes": 7}
    transformer = torchvision.models.VisionTransformer
    yield "vit", partial(transformer, image_size=64, patch_size=16, **shape)
    yield "vit-8", partial(transformer, image_size=64, patch_size=8, **shape)
    swin = torchvision.models.swin_transformer.SwinTransformer
    for width in (8, 16, 24):
        arguments = {"embed_dim": width, "depths": [1, 2], "num_heads": [2, 2], "num_classes": 7}
        yield f"swin-{width}", partial(swin, [4, 4], window_size=[4, 4], **arguments)
        yield f"swin-{width}-padded", partial(swin, [4, 4], window_size=[3, 3], **arguments)
        yield f"swin-{width}-wide-cells", partial(swin, [4, 8], window_size=[4, 4], **arguments)
    maxvit = {
        "stem_channels": 16,
        "block_channels": [16, 32],
        "block_layers": [1, 1],
        "head_dim": 8,
    }
    maxvit |= {"stochastic_depth_prob": 0.0, "partition_size": 4, "num_classes": 7}
    yield "maxvit", partial(torchvision.models.MaxVit, input_size=(64, 64), **maxvit)


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
