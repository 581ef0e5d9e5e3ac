"""A model of images and texts as two encoders and the scale of their similarity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from libragrad_lightning.models import matrix_of
from libragrad_lightning.prompts.errors import PromptError

Encoder: TypeAlias = Callable[..., Any]
"""Embeds images, or token ids: returns `[B, D]`, or anything that holds it."""

PAPER_SCALE = 100.0
"""What cosines are multiplied by where a model has no scale (Mehri et al. 2025, CLIP's limit)."""

_METHODS = (("encode_image", "encode_text"), ("get_image_features", "get_text_features"))
"""The names of methods that embed images and texts: of open_clip and of transformers."""


@dataclass(frozen=True)
class DualEncoder:
    """Two encoders into one space.

    Attributes:
        images: Embeds images `[B, C, H, W]`.
        texts: Embeds token ids `[N, L]`, or what else a tokenizer returns, as keywords.
        model: The module that holds the encoders; None if both are functions.
        has_scale: Whether the model has a scale, and perhaps a bias, of its own.
    """

    images: Encoder
    texts: Encoder
    model: nn.Module | None
    has_scale: bool = False

    def image_embeddings(self, images: Tensor) -> Tensor:
        """Return embeddings of length one, `[B, D]`."""
        return F.normalize(_embedding(self.images(images), "images"), dim=-1)

    def text_embeddings(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Return embeddings of length one, `[N, D]`.

        Args:
            tokens: What the tokenizer returned; the name of ids that came alone is empty.

        Raises:
            PromptError: If the encoder does not take them, or returns no embeddings.
        """
        ids = tokens.get("")
        try:
            output = self.texts(**tokens) if ids is None else self.texts(ids)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if isinstance(error, PromptError | torch.OutOfMemoryError):
                raise
            shapes = ", ".join(f"{name or 'ids'} {tuple(t.shape)}" for name, t in tokens.items())
            raise PromptError(
                f"The text encoder does not take what the tokenizer returns ({shapes}: "
                f"{type(error).__name__}: {error}); pass the `tokenizer` that the model was "
                "trained with, with its context length."
            ) from error
        return F.normalize(_embedding(output, "texts"), dim=-1)

    def scaled(self, cosines: Tensor, scale: float | None) -> Tensor:
        """Return scores of cosines: multiplied by a number, or as the model itself does it."""
        if scale is not None or not self.has_scale:
            return (PAPER_SCALE if scale is None else scale) * cosines
        scores = _number(self.model, "logit_scale").exp() * cosines
        bias = getattr(self.model, "logit_bias", None)
        return scores if bias is None else scores + bias


def dual_encoder(model: nn.Module | tuple[Encoder, Encoder]) -> DualEncoder:
    """Return the encoders of a model, or of a pair of an image and a text encoder.

    Raises:
        PromptError: If the model embeds only images, only texts, or neither.
    """
    if isinstance(model, tuple | list):
        return _of_pair(tuple(model))
    for images, texts in _METHODS:
        found = [callable(getattr(model, name, None)) for name in (images, texts)]
        if all(found):
            encode = getattr(model, images)
            if hasattr(getattr(model, "config", None), "vision_config"):
                encode = _of_patches(model, encode)
            has_scale = isinstance(getattr(model, "logit_scale", None), Tensor)
            return DualEncoder(encode, _ids_alone(model, texts), model, has_scale)
    raise PromptError(
        f"{type(model).__name__} does not embed both images and texts, by `encode_image` and "
        "`encode_text` or `get_image_features` and `get_text_features`; pass as `model` the whole "
        "model of which it is a part, or the pair `(image_encoder, text_encoder)`."
    )


def _of_pair(pair: tuple[Any, ...]) -> DualEncoder:
    if len(pair) != 2 or not all(map(callable, pair)):
        kinds = ", ".join(type(part).__name__ for part in pair)
        raise PromptError(
            f"`model` is ({kinds}); pass a model of images and texts, or the pair "
            "`(image_encoder, text_encoder)`, two modules or functions."
        )
    modules = [part for part in pair if isinstance(part, nn.Module)]
    return DualEncoder(pair[0], pair[1], nn.ModuleList(modules) if modules else None)


def _ids_alone(model: nn.Module, name: str) -> Encoder:
    """Return the text encoder; `encode_text` is given ids whatever else a tokenizer returns."""
    encode: Encoder = getattr(model, name)
    return encode if name != "encode_text" else partial(_encoded_ids, encode)


def _encoded_ids(encode: Encoder, ids: Tensor | None = None, **others: Tensor) -> Any:
    return encode(others["input_ids"] if ids is None else ids)


def _of_patches(model: Any, encode: Encoder) -> Encoder:
    """Return the image encoder of a model of transformers, whatever form it wants images in."""
    if model.config.model_type != "siglip2":
        return encode
    return partial(_encoded_patches, encode, model.config.vision_config.patch_size)


def _encoded_patches(encode: Encoder, size: int, images: Tensor) -> Any:
    """Embed images as the rows of patches that NaFlex models take, channels last."""
    rows, columns = images.shape[2] // size, images.shape[3] // size
    cut = images[..., : rows * size, : columns * size]
    patches = cut.unflatten(3, (columns, size)).unflatten(2, (rows, size))
    packed = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    mask = torch.ones(packed.shape[:2], dtype=torch.int64, device=images.device)
    shapes = mask.new_tensor([[rows, columns]]).expand(len(images), -1)
    return encode(packed, mask, shapes)


def _number(model: Any, name: str) -> Tensor:
    found: Tensor = getattr(model, name)
    return found


def _embedding(output: Any, of: str) -> Tensor:
    found, seen = matrix_of(output)
    if found is None:
        raise PromptError(
            f"The encoder of {of} must return embeddings [B, D], or hold one such tensor, but "
            f"returned {seen}; pass the pair `(image_encoder, text_encoder)` as `model`, with a "
            "function that returns the embeddings."
        )
    return found
