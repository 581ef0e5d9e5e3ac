"""The logits in what a model returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from libragrad_lightning.models.errors import UnreadableModelError

_TEXT_METHODS = ("encode_text", "get_text_features")
"""Methods that embed texts."""


def logits_of(output: Any) -> Tensor:
    """Return the logits `[B, C]` in what a model returned.

    They are a tensor, `.logits` or `["logits"]`, or the only tensor `[B, C]` of several things. A
    tensor `[B]` holds one logit per image.

    Raises:
        UnreadableModelError: If there are none, or more than one.
    """
    found, seen = matrix_of(output)
    if found is not None:
        return found
    raise UnreadableModelError(
        f"The model must return logits of shape [B, C] but returned {seen}; pass `forward`, a "
        "function from images to logits."
    )


def matrix_of(output: Any) -> tuple[Tensor | None, str]:
    """Return the only matrix in what a model returned, or None, and what was seen in words.

    It is a tensor, `.logits` or `["logits"]`, or the only tensor `[B, C]` of several things. A
    tensor `[B]` is a column.
    """
    if isinstance(output, Mapping):
        found = [output["logits"]] if "logits" in output else list(output.values())
    elif isinstance(output, Tensor):
        found = [output[:, None] if output.dim() == 1 else output]
    elif hasattr(output, "logits"):
        found = [output.logits]
    else:
        found = list(output) if isinstance(output, Sequence) and not isinstance(output, str) else []
    fitting = [t for t in found if isinstance(t, Tensor) and t.dim() == 2]
    shapes = [tuple(t.shape) for t in found if isinstance(t, Tensor)]
    seen = ", ".join(map(str, shapes)) or type(output).__name__
    return (fitting[0] if len(fitting) == 1 else None), seen


def check_classifies(module: nn.Module) -> None:
    """Refuse a model whose output are embeddings of images and texts.

    Raises:
        UnreadableModelError: If the model has a tower for texts.
    """
    for texts in _TEXT_METHODS:
        if callable(getattr(module, texts, None)):
            raise UnreadableModelError(
                f"{type(module).__name__} embeds images and texts, and an embedding is no score; "
                "explain `libragrad_lightning.prompts.text_prompts(model, tokenizer, prompts)` in "
                "its place, whose scores are the similarities of images to texts."
            )
