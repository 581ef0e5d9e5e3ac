"""Lightning is published as two packages, and the classes of one are not those of the other."""

from __future__ import annotations

import sys
from typing import TypeVar

T = TypeVar("T")

_OTHER = {"lightning.pytorch": "pytorch_lightning", "lightning.fabric": "lightning_fabric"}


def in_both(kind: type[T]) -> tuple[type[T], ...]:
    """Return a class of `lightning`, and that of `pytorch_lightning` if anybody has imported it.

    What they do is the same, so that `isinstance(trainer, in_both(Trainer))` is the question to
    ask of what belongs to the user.

    Args:
        kind: A class of `lightning.pytorch` or `lightning.fabric`.
    """
    for ours, theirs in _OTHER.items():
        before, found, rest = kind.__module__.partition(ours)
        if found and not before:
            twin = getattr(sys.modules.get(f"{theirs}{rest}"), kind.__name__, None)
            return (kind,) if twin is None else (kind, twin)
    return (kind,)
