"""The families of torchvision that classify images, and small shapes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torchvision
from torch import nn

from place_models import PlaceModel, Size

_SIZES: tuple[Size, ...] = ((64, 64), (64, 96))


def models() -> Iterator[PlaceModel]:
    """Yield the smallest member of every family, and small models of the rarer shapes."""
    for name, *own in _TORCHVISION:
        for size in own or _SIZES:
            yield PlaceModel("torchvision", name, partial(_torchvision, name), size)
    for name, build in _own_shapes():
        for size in _SIZES:
            square = size[0] == size[1]
            yield PlaceModel("torchvision", name, build, size, optional=not square)


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
