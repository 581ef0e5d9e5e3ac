"""The weights of a model by stage, from the head down to the stem."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from libragrad_lightning.models import Point, TokenModel
from libragrad_lightning.models.levels import seen_at


@dataclass(frozen=True)
class Stage:
    """A part of a forward pass.

    Attributes:
        name: ``head``, the path of a block, or ``stem``.
        weights: The parameters that are used in it and not before.
    """

    name: str
    weights: tuple[nn.Parameter, ...]


def stages_of(model: nn.Module, reading: TokenModel, image: Tensor) -> list[Stage]:
    """Return the stages that have weights, from the head down to the stem.

    A weight is of the stage in which an operation first uses it, whichever module it belongs to. So
    a projection that a model holds itself is part of the head, and its position table of the stem;
    what stands between two blocks belongs to the first of them.

    Args:
        model: The module that holds the weights.
        reading: What was read of it.
        image: `[1, C, H, W]`.
    """
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    uses = _Uses(weights)
    with ExitStack() as stack:
        for number, level in enumerate(reading.levels):
            for point in level.points:
                stack.enter_context(seen_at(point, partial(uses.enter, number + 1)))
        last = len(reading.levels) + 1
        for point in reading.ends or (Point(reading.blocks[-1], None),):
            stack.enter_context(seen_at(point, partial(uses.enter, last)))
        stack.enter_context(uses)
        # What a module returns is seen if it is differentiable, which frozen weights are not.
        reading.logits(image.detach().requires_grad_())
    paths = {module: path for path, module in model.named_modules()}
    blocks = [paths.get(block) or f"block {i}" for i, block in enumerate(reading.blocks)]
    names = ["stem", *blocks, "head"]
    by_stage = [uses.of_stage(number) for number in range(len(names))]
    pairs = zip(reversed(names), reversed(by_stage), strict=True)
    return [Stage(name, weights) for name, weights in pairs if weights]


class _Uses(TorchDispatchMode):
    """Notes in which stage each weight is first used."""

    def __init__(self, weights: Sequence[nn.Parameter]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights = {id(weight): weight for weight in weights}
        self._first: dict[int, int] = {}
        self._stage = 0

    def enter(self, stage: int, _: Tensor) -> None:
        self._stage = stage

    def of_stage(self, stage: int) -> tuple[nn.Parameter, ...]:
        """Return the weights of a stage in the order of the model."""
        return tuple(w for key, w in self._weights.items() if self._first.get(key) == stage)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for value in tree_leaves((args, kwargs)):
            if id(value) in self._weights:
                self._first.setdefault(id(value), self._stage)
        return func(*args, **(kwargs or {}))
