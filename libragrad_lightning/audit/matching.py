"""Finds which functions of a step were given what its modules returned, and which labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from libragrad_lightning.audit.functions import SIMILARITIES
from libragrad_lightning.audit.trees import Way, tensors
from libragrad_lightning.audit.watch import ImageCall, Use, WatchedStep
from libragrad_lightning.models import SQUASHING


@dataclass(frozen=True)
class Match:
    """A function that was given what a call returned.

    Attributes:
        use: What the function was given.
        call: The call.
        way: The way to the tensor in its output.
        squashed: The functions that squashed it on the way.
    """

    use: Use
    call: ImageCall
    way: Way
    squashed: tuple[str, ...]


def matches_in(step: WatchedStep, calls: Sequence[ImageCall]) -> list[Match]:
    """Return which functions were given what calls returned."""
    found = []
    for use in step.uses:
        if use.name in SIMILARITIES:
            continue
        for call in calls:
            for way, copy in call.scores.items():
                squashed = _passed_on(step, use.scores, use.values, call.returned[way], copy)
                if squashed is None and use.target is not None and use.labels is not None:
                    # A loss may be given labels first.
                    squashed = _passed_on(step, use.target, use.labels, call.returned[way], copy)
                    if squashed is not None:
                        use = replace(use, labels=use.values, target=use.scores)
                if squashed is not None:
                    found.append(Match(use, call, way, squashed))
    return found


def _passed_on(
    step: WatchedStep, given: Tensor, values: Tensor, returned: Tensor, copy: Tensor
) -> tuple[str, ...] | None:
    """Return what squashed scores on their way to a function; None if these are no such scores."""
    trail = step.origins.trail(given)
    if any(name == "softmin" for name, _ in trail):
        return None
    for i, (_, tensor) in enumerate(trail):
        if tensor is returned:
            names = tuple(n for n, _ in trail[1 : i + 1] if n in SQUASHING)
            # Between the two, the step may have overwritten some.
            same = bool(names) or _equal(values, copy)
            return names if same else None
    if _equal(values, copy):
        return ()
    for name in ("softmax", "log_softmax", "sigmoid"):
        squashed = getattr(copy, name)(-1) if name != "sigmoid" else copy.sigmoid()
        if (copy.shape[-1:] != (1,) or name == "sigmoid") and _equal(values, squashed):
            return (name,)
    return None


def _equal(values: Tensor, scores: Tensor) -> bool:
    if values.numel() != scores.numel() or not values.is_floating_point():
        return False
    values, scores = values.reshape(-1).float(), scores.reshape(-1).float()
    return torch.allclose(values, scores, atol=1e-7, equal_nan=True)


def labeling_use(uses: Sequence[Use], step: WatchedStep) -> Use | None:
    """Return the loss that was given labels: of several, the one whose labels the batch holds."""
    losses = [use for use in uses if use.labels is not None]
    if len(losses) < 2:
        return losses[0] if losses else None
    held = [t for _, t in tensors(step.batch) if not t.is_nested]
    for use in losses:
        if any(_same_values(use, tensor) for tensor in held):
            return use
    whole = [u for u in losses if u.labels is not None and not u.labels.is_floating_point()]
    return (whole or losses)[-1]


def _same_values(use: Use, tensor: Tensor) -> bool:
    labels = use.labels
    return (
        labels is not None
        and labels.numel() == tensor.numel()
        and bool((labels.reshape(-1).float() == tensor.detach().reshape(-1).float()).all())
    )


def rows_of_other_labels(step: WatchedStep, rows: int) -> int:
    """Return how many labels a loss was given, if they are more or fewer than images."""
    counts = [len(u.labels) for u in step.uses if u.labels is not None and u.labels.dim()]
    return counts[0] if counts and rows not in counts else 0
