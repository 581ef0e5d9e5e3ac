"""Small random models of many libraries, by which the places of tokens are checked.

No weights are downloaded. The models of each library are listed in a file of its own; here they
come together, and their constants are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from libragrad_lightning.diagnosis.random_constants import draw_constants

IMAGES = 2
Size = tuple[int, int]


class UnbuildableError(Exception):
    """A model cannot be built, or does not accept its images by itself."""


@dataclass(frozen=True)
class PlaceModel:
    """A model whose tokens are to be found.

    Attributes:
        library: The library that it is from; ``"layouts"`` are written by hand.
        name: Its name there.
        build: Makes it; constants are drawn afterwards.
        size: Height and width of its images.
        scores: From what it returns to scores `[B, K]`, if they are not to be found by themselves.
        optional: Whether it need not accept the size at all.
    """

    library: str
    name: str
    build: Callable[[], nn.Module]
    size: Size = (64, 64)
    scores: Callable[[Any], Tensor] | None = None
    optional: bool = False

    @property
    def key(self) -> str:
        """Library, name and size, in one word each."""
        return f"{self.library} {self.name} {self.size[0]}x{self.size[1]}"

    def images(self, seed: int) -> Tensor:
        """Return two different images `[2, 3, H, W]` in float64."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(IMAGES, 3, *self.size, generator=generator, dtype=torch.float64)

    def built(self) -> nn.Module:
        """Return it in float64 and evaluation mode, all constants drawn at random.

        Raises:
            UnbuildableError: If that, or a forward pass of two images, fails without us.
        """
        torch.manual_seed(0)
        try:
            model = self.build().eval().double()
            draw_constants(model, self.images(1))
            with torch.no_grad():
                model(self.images(2))
        except Exception as error:  # in whatever words
            raise UnbuildableError(f"{type(error).__name__}: {error}") from error
        return model

    def forward(self, model: nn.Module) -> Callable[[Tensor], Tensor] | None:
        """Return images to scores, or None if the model itself is that."""
        scores = self.scores
        return None if scores is None else lambda images: scores(model(images))


def place_models(words: tuple[str, ...] = ()) -> dict[str, PlaceModel]:
    """Return the models by their keys.

    Args:
        words: Keep only those whose key holds one of these; a word of several parts, joined by
            ``+``, asks for all of its parts.
    """
    found = {model.key: model for file in dict.fromkeys(_FILES.values()) for model in _of(file)}
    return {key: m for key, m in found.items() if not words or any(_has(key, w) for w in words)}


def place_model(key: str) -> PlaceModel:
    """Return the model of a key; imports no more than its library."""
    return next(model for model in _of(_FILES[key.partition(" ")[0]]) if model.key == key)


_FILES = {
    "layouts": "place_layouts",
    "vit-pytorch": "place_vit_pytorch",
    "x-transformers": "place_vit_pytorch",
    "transformers": "place_transformers",
    "open_clip": "place_open_clip",
    "tests": "place_open_clip",
    "torchvision": "place_torchvision",
    "timm": "place_timm",
}
"""Where the models of each library are listed."""


def _of(file: str) -> Iterator[PlaceModel]:
    found: Iterator[PlaceModel] = import_module(file).models()
    return found


def _has(key: str, word: str) -> bool:
    return all(part in key for part in word.split("+"))
