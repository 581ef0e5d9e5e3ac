"""Plays the call that turned images into scores again, with other images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from libragrad_lightning.audit.errors import AuditError
from libragrad_lightning.audit.trace import Continuation
from libragrad_lightning.audit.trees import Way, at, described, mapped, tensors
from libragrad_lightning.models import called_with_origins


class Forward(Protocol):
    """Maps images to scores in a forward pass of the audited module."""

    def __call__(self, images: Tensor, others: tuple[Tensor, ...]) -> Tensor:
        """Return the scores `[B, C]` of images `[B, C, H, W]`.

        Args:
            images: The images.
            others: One row of each of the other arguments that have a row for every image.
        """
        ...


@dataclass(frozen=True)
class ModelCall:
    """The forward pass that is explained.

    Attributes:
        forward: Maps images to scores.
        squashed: The function that squashes the scores at its end, or an empty name. What is
            explained are the scores before it.
        others: What the model receives beside the images, one row of each.
        needs_others: Whether scores depend on these, so that only images that share them can be
            explained together.
    """

    forward: Forward
    squashed: str = ""
    others: tuple[Tensor, ...] = ()
    needs_others: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Return the scores `[B, C]` of images `[B, C, H, W]`."""
        if not self.squashed:
            return _two_axes(self.forward(images, self.others))
        scores, origins = called_with_origins(lambda: self.forward(images, self.others))
        return _two_axes(origins.unsquashed(scores)[0])

    def beside(self, others: tuple[Tensor, ...]) -> ModelCall:
        """Return the call with the first row of what images receive beside them."""
        return replace(self, others=tuple(t[:1] for t in others))


@dataclass(frozen=True)
class CallReplay:
    """Calls one module as the validation step did.

    Attributes:
        module: The module.
        arguments: Its arguments, ``(args, kwargs)``.
        images: The way to the images in them.
        others: The ways to what has a row for every image.
        scores: The way to the scores in its output; not looked at if `goes_on`.
        goes_on: What the step makes of the output, or None.
    """

    module: nn.Module
    arguments: tuple[tuple[Any, ...], Mapping[str, Any]]
    images: Way
    others: tuple[Way, ...]
    scores: Way
    goes_on: Continuation | None = None

    def __call__(self, images: Tensor, others: tuple[Tensor, ...]) -> Tensor:
        """Return the scores of images."""
        args, kwargs = _exchanged(self.arguments, self.images, images, self.others, others)
        output = self.module(*args, **kwargs)
        found: Tensor = at(output, self.scores) if self.goes_on is None else self.goes_on(output)
        return found


@dataclass(frozen=True)
class PairReplay:
    """Scores each image with what belongs to it alone, where a step compares all with all.

    Such a step has scores `[B, B]`, as those of images and their captions: the score of a pair does
    not depend on the batch, but the number of columns does.

    Attributes:
        forward: Gives these scores.
    """

    forward: Forward

    def __call__(self, images: Tensor, others: tuple[Tensor, ...]) -> Tensor:
        """Return the scores of pairs, `[B, 1]`."""
        return self.forward(images, others).diagonal()[:, None]


@dataclass(frozen=True)
class DirectCall:
    """Calls a function of the images alone.

    Attributes:
        function: The function.
        name: What it is, in messages.
    """

    function: Callable[[Tensor], Any]
    name: str

    def __call__(self, images: Tensor, others: tuple[Tensor, ...]) -> Tensor:
        """Return the scores of images."""
        try:
            output = self.function(images)
        except (TypeError, KeyError, AttributeError, NotImplementedError) as error:
            raise AuditError(
                f"{self.name} cannot be called with images alone ({type(error).__name__}: {error});"
                " pass `forward`, the path of a submodule or a function `(module, images) -> "
                "scores`."
            ) from error
        return _scores_in(output, self.name)


def _exchanged(
    arguments: tuple[tuple[Any, ...], Mapping[str, Any]],
    way_to_images: Way,
    images: Tensor,
    ways: tuple[Way, ...] = (),
    others: tuple[Tensor, ...] = (),
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments with other images, and rows for all of them."""

    def exchange(way: Way, leaf: Any) -> Any:
        if way == way_to_images:
            return images
        if way in ways:
            leaf = _rows(others[ways.index(way)], len(images)).to(images.device)
        if isinstance(leaf, Tensor) and leaf.dtype in (torch.float16, torch.bfloat16):
            return leaf.to(images.dtype)
        return leaf

    args, kwargs = mapped(arguments, exchange)
    return tuple(args), dict(kwargs)


def _rows(rows: Tensor, count: int) -> Tensor:
    return rows if len(rows) == count else rows[:1].expand(count, *rows.shape[1:])


def _two_axes(scores: Tensor) -> Tensor:
    return scores[:, None] if scores.dim() == 1 else scores.flatten(1)


def _scores_in(output: Any, name: str) -> Tensor:
    found = [(way, t) for way, t in tensors(output) if t.is_floating_point() and t.dim() in (1, 2)]
    two = [(way, t) for way, t in found if t.dim() == 2] or found
    named = [(way, t) for way, t in two if way and way[-1] == "logits"]
    chosen = named if len(named) == 1 else two
    if len(chosen) != 1:
        raise AuditError(
            f"{name} must return scores [B, C] but returned {described(output)}; pass `forward`, a "
            "function `(module, images) -> scores`."
        )
    return chosen[0][1]
