"""timm architectures: the smallest input that each accepts, and reduced forms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import timm
import torch
from timm.models import get_pretrained_cfg, model_entrypoint
from torch import Tensor, nn

from libragrad_lightning.diagnosis.random_constants import draw_constants

IMAGES = 2
_SIZES = (64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 320, 384, 448, 512, 640, 768)

_REDUCTIONS: tuple[dict[str, object], ...] = (
    {"depth": 2},
    {"depths": (1, 1, 1, 1)},
    {"layers": (1, 1, 1, 1)},
    {"depths": (1, 1, 1)},
    {"depth_multiplier": 0.1},
    {"channel_multiplier": 0.25, "depth_multiplier": 0.1},
)
"""Constructor arguments that make an architecture smaller, the first that it accepts is used."""


@dataclass(frozen=True)
class Shape:
    """How an architecture is built.

    Attributes:
        size: Height and width of the images.
        arguments: Constructor arguments besides the name.
        reduced: Whether the arguments take blocks or channels away.
    """

    size: int
    arguments: dict[str, object] = field(default_factory=dict)
    reduced: bool = False


def module_of(name: str) -> str:
    """Return the timm model module that defines an architecture."""
    return str(model_entrypoint(name).__module__).rpartition(".")[2]


def smallest_shape(name: str, reduction: dict[str, object] | None = None) -> Shape:
    """Return the smallest accepted image size, found without computing anything.

    Raises:
        ValueError: If the architecture accepts no size at all.
    """
    arguments = reduction or {}
    native = max(get_pretrained_cfg(name).input_size[1:])
    sizes = sorted({s for s in _SIZES if s <= native} | {native})
    rigid = empty_model(name, arguments)
    for size in sizes:
        sized = {**arguments, "img_size": size}
        if _accepts(empty_model(name, sized), size):
            return Shape(size, sized)
        if _accepts(rigid, size):
            return Shape(size, arguments)
    raise ValueError(f"{name!r} accepts none of the image sizes {sizes} with {arguments}.")


def empty_model(name: str, arguments: dict[str, object]) -> nn.Module | None:
    try:
        with torch.device("meta"):
            model: nn.Module = timm.create_model(name, **arguments)
    except Exception:  # a refusal of an argument, in whatever words
        return None
    return model.eval()


def _accepts(model: nn.Module | None, size: int) -> bool:
    if model is None:
        return False
    try:
        with torch.no_grad():
            model(torch.empty(IMAGES, 3, size, size, device="meta"))
    except Exception:  # a refusal of a size, in whatever words
        return False
    return True


def reductions(name: str) -> Iterator[Shape]:
    """Yield smaller forms of an architecture that its constructor accepts."""
    for reduction in _REDUCTIONS:
        try:
            shape = smallest_shape(name, reduction)
        except ValueError:
            continue
        yield Shape(shape.size, shape.arguments, reduced=True)


def build(name: str, shape: Shape, seed: int = 0) -> nn.Module:
    """Return an architecture in float64 and evaluation mode, all its constants drawn at random."""
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(name, **shape.arguments).eval().double()
    draw_constants(model, random_images(shape, seed + 1))
    return model


def random_images(shape: Shape, seed: int) -> Tensor:
    """Return standard normal images `[2, 3, H, W]` in float64."""
    generator = torch.Generator().manual_seed(seed)
    size = (IMAGES, 3, shape.size, shape.size)
    return torch.randn(size, generator=generator, dtype=torch.float64)
