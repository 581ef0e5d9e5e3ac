"""What is kept of the gradients of explained tensors, as soon as they are there.

Those of all levels of a model together take as much memory as a block of it saves, or more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from libragrad_lightning.backward.graph import AnnotatedGraph, edge_of

Keep: TypeAlias = Callable[[int, Tensor], Tensor]
"""Makes of the gradient of an explained tensor, with its number, what is kept of it."""


@dataclass
class Arrivals:
    """The explained tensors of a backward pass, and what is kept of their gradients.

    Attributes:
        graph: The graph that is differentiated.
        inputs: The explained tensors.
        keep: What is kept of each gradient; the gradient itself by default.
    """

    graph: AnnotatedGraph
    inputs: Sequence[Tensor]
    keep: Keep | None = None
    _found: dict[int, Tensor] = field(default_factory=dict, repr=False)
    _passed: frozenset[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._passed = frozenset() if self.keep is None else self._on_the_way()

    @property
    def awaited(self) -> list[Tensor]:
        """The inputs whose gradients autograd is to return."""
        return [x for i, x in enumerate(self.inputs) if i not in self._passed]

    def watched(self) -> list[RemovableHandle]:
        """Look at the gradients of the others, on their way."""
        return [self._seen(number) for number in self._passed]

    def kept(self, gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """Return what is kept for all inputs, given what autograd returned for `awaited`."""
        returned = iter(gradients)
        for number, tensor in enumerate(self.inputs):
            if number not in self._passed:
                self._arrived(number, next(returned))
            if number not in self._found:
                self._arrived(number, torch.zeros_like(tensor))
        return [self._found[number] for number in range(len(self.inputs))]

    def _on_the_way(self) -> frozenset[int]:
        """Return the numbers of the inputs that are computed from other ones."""
        nodes = {annotated.node for annotated in self.graph.nodes}
        return frozenset(i for i, x in enumerate(self.inputs) if edge_of(x)[0] in nodes)

    def _seen(self, number: int) -> RemovableHandle:
        def arrived(gradient: Tensor | None) -> None:
            self._arrived(number, gradient)

        handle: RemovableHandle = self.inputs[number].register_hook(arrived)
        return handle

    def _arrived(self, number: int, gradient: Tensor | None) -> None:
        if gradient is not None:
            self._found[number] = gradient if self.keep is None else self.keep(number, gradient)
