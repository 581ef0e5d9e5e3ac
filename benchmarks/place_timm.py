"""The smallest architecture of every timm module, square and not square."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import timm
import torch
from torch import nn

from place_models import PlaceModel, Size, UnbuildableError
from zoo_architectures import empty_model, smallest_shape
from zoo_rows import Row, read

_TOO_LARGE = {"deepseek_vit_412m": {"depth": 2}}
_TABLE = Path(__file__).parents[1] / "docs" / "zoo.csv"


def models() -> Iterator[PlaceModel]:
    """Yield every representative at its smallest size, and half as wide again."""
    for name, side in representatives().items():
        yield PlaceModel("timm", name, partial(_smallest, name), (side, side))
        wide = (side, side * 3 // 2)
        yield PlaceModel("timm", name, partial(_wide, name, wide), wide, optional=True)


@cache
def representatives() -> dict[str, int]:
    """Return the architecture with the fewest parameters of every module, and its image side."""
    smallest: dict[str, Row] = {}
    for row in sorted(read(_TABLE, Row), key=lambda row: row.parameters):
        smallest.setdefault(row.module, row)
    return {row.name: row.size for row in smallest.values()}


def _smallest(name: str) -> nn.Module:
    shape = smallest_shape(name, _TOO_LARGE.get(name))
    model: nn.Module = timm.create_model(name, **shape.arguments)
    return model


def _wide(name: str, size: Size) -> nn.Module:
    reduction = _TOO_LARGE.get(name, {})
    for arguments in ({**reduction, "img_size": size}, reduction):
        if _accepts(empty_model(name, arguments), size):
            model: nn.Module = timm.create_model(name, **arguments)
            return model
    raise UnbuildableError(f"{name} does not accept images of {size[0]} x {size[1]}")


def _accepts(model: nn.Module | None, size: Size) -> bool:
    if model is None:
        return False
    try:
        with torch.no_grad():
            model(torch.empty(2, 3, *size, device="meta"))
    except Exception:  # a refusal of a size, in whatever words
        return False
    return True
