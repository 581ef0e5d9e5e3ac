"""Models of open_clip by their names, with what belongs to them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import Tensor, nn

from libragrad_lightning.models import is_out_of_memory
from libragrad_lightning.prompts.errors import PromptError
from libragrad_lightning.prompts.tokens import Tokenizer

RANDOM = ""
"""Stands for weights that nobody has trained."""


@dataclass(frozen=True)
class HubModel:
    """A model of images and texts, with what belongs to it.

    Attributes:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        preprocess: From an image of Pillow to `[3, H, W]` as the model expects it.
        mean: Mean of the channels that `preprocess` subtracts.
        std: Standard deviation that it divides by.
    """

    model: nn.Module
    tokenizer: Tokenizer
    preprocess: Callable[[Any], Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def hub_model(name: str, weights: str | None = None) -> HubModel:
    """Return a model of open_clip.

    Args:
        name: A name that open_clip knows, such as ``"ViT-B-16-SigLIP"``.
        weights: The tag of weights that open_clip has for it, or a file of weights; None for the
            first tag, and an empty text for random weights.

    Raises:
        PromptError: If open_clip is not there, does not know the name or the tag, or cannot fetch
            the weights or the tokenizer.
    """
    library = _open_clip()
    if name not in library.list_models():
        near = _near(name, library.list_models())
        raise PromptError(f"open_clip has no model {name!r}; pass as `model` {near}.")
    chosen = _weights(library, name, weights)
    what = f"weights {chosen!r} of {name}" if chosen else f"parts of {name}"
    model, _, preprocess = _fetched(
        lambda: library.create_model_and_transforms(name, chosen or None),
        f"The {what} cannot be fetched",
        "pass the file of weights that you have as `pretrained`",
    )
    tokenizer = _fetched(
        lambda: library.get_tokenizer(name),
        f"The tokenizer of {name} cannot be fetched",
        "pass as `model` one whose tokenizer is a part of open_clip, such as 'ViT-B-32'",
    )
    mean, std = (tuple(getattr(model.visual, f"image_{part}")) for part in ("mean", "std"))
    return HubModel(model.eval(), tokenizer, preprocess, mean, std)


def _open_clip() -> Any:
    try:
        return import_module("open_clip")
    except ImportError as error:
        raise PromptError(
            f"Models are taken from open_clip, which cannot be imported ({error}); install it with "
            "`pip install open_clip_torch`."
        ) from error


def _weights(library: Any, name: str, weights: str | None) -> str:
    """Return a tag or a file; empty for random weights."""
    tags: list[str] = library.list_pretrained_tags_by_model(name)
    if weights is None:
        if not tags:
            raise PromptError(
                f"open_clip has no weights of {name}; pass a file as `pretrained`, or '' for "
                "random weights."
            )
        return tags[0]
    if weights != RANDOM and weights not in tags and not Path(weights).exists():
        known = f"one of {tags}" if tags else "''"
        raise PromptError(
            f"{weights!r} is no file, and open_clip has no such weights of {name}; pass as "
            f"`pretrained` {known}."
        )
    return weights


def _fetched(make: Callable[[], Any], what: str, instead: str) -> Any:
    try:
        return make()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = shorten(str(error), 160, placeholder="...").removesuffix(".")
        raise PromptError(
            f"{what} ({type(error).__name__}: {reason}); run it once where there is a network, or "
            f"{instead}."
        ) from error


def _near(name: str, known: list[str]) -> str:
    """Return names like one that is not known."""
    lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.rpartition("/")[2].lower(), lower, 3, 0.5)
    return (
        " or ".join(repr(lower[other]) for other in near) or "a name of `open_clip.list_models()`"
    )
