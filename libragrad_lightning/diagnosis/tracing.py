"""Records which module ran which operations of a forward pass, and what went in and out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch._C._autograd import _get_sequence_nr
from torch.utils import _pytree as pytree

from libragrad_lightning.models import Enter, Leave, hooked_modules, is_differentiable


@dataclass
class ModuleCall:
    """One call of a module.

    Attributes:
        path: The path of the module in the model, empty for the model itself.
        kind: The name of its class.
        start: Operations of the graph from this position on belong to the call...
        end: ...up to this position, exclusive.
        inputs: The differentiable tensors that went in; each is a copy of its own, so that its
            gradient is what came back through this call alone.
        outputs: The differentiable tensors that came out.
        children: The calls made inside, in order.
    """

    path: str
    kind: str
    start: int
    end: int = -1
    inputs: list[Tensor] = field(default_factory=list, repr=False)
    outputs: list[Tensor] = field(default_factory=list, repr=False)
    children: list[ModuleCall] = field(default_factory=list, repr=False)

    def innermost(self, position: int) -> ModuleCall:
        """Return the innermost call to which the operation at a position belongs."""
        for child in self.children:
            if child.start <= position < child.end:
                return child.innermost(position)
        return self

    def all_calls(self) -> Iterator[ModuleCall]:
        """Yield this call and all calls inside, outermost first."""
        yield self
        for child in self.children:
            yield from child.all_calls()


@contextmanager
def traced_calls(model: nn.Module, *, isolate: bool) -> Iterator[list[ModuleCall]]:
    """Record the calls of a model and of all modules in it.

    Hooks stand on the modules inside of the context only.

    Args:
        model: The model.
        isolate: Whether to give every call its own copies of its inputs, whose gradients then tell
            calls apart that share an input. Without it the graph is the model's own.

    Yields:
        A list that receives one `ModuleCall` for every call of the model.
    """
    roots: list[ModuleCall] = []
    running: list[ModuleCall] = []

    def hooks(path: str) -> tuple[Enter, Leave]:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> Any:
            call = ModuleCall(path, type(module).__name__, _position())
            (running[-1].children if running else roots).append(call)
            running.append(call)
            if isolate:
                args, kwargs = pytree.tree_map(lambda x: _copied(x, call.inputs), (args, kwargs))
            return args, kwargs

        return enter, leave

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        call = running.pop()
        call.end = _position()
        call.outputs += [leaf for leaf in pytree.tree_leaves(output) if is_differentiable(leaf)]

    with hooked_modules(model, hooks):
        yield roots


def _position() -> int:
    return _get_sequence_nr()


def _copied(value: Any, copies: list[Tensor]) -> Any:
    # Not a view: an operation in place on a view would rewrite the history of its base.
    if not is_differentiable(value) or isinstance(value, nn.Parameter):
        return value
    copies.append(value.clone())
    return copies[-1]
