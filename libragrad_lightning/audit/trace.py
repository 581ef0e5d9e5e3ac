"""The way from what a module returned to the scores that a step uses, function by function.

A step may go on with what a module returned: a head, a temperature, similarities to prompts. What
it computes is remembered as it happens, so that it can be computed of other images without running
the step again, which would do twice whatever else it does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from libragrad_lightning.audit.errors import AuditError
from libragrad_lightning.audit.trees import mapped, tensors

_LONGEST = 100
"""More functions are a network of its own, which is no module that is shown the images."""


@dataclass(frozen=True)
class Operation:
    """A function that was called, with its arguments and what it returned."""

    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    result: Any

    @property
    def changes(self) -> list[Tensor]:
        """The tensors that are others afterwards: results, and what is overwritten."""
        name = getattr(self.function, "__name__", "")
        in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
        overwritten = tensors(list(self.args[:1])) if in_place else []
        return [t for _, t in [*tensors([self.result]), *overwritten]]


@dataclass
class Trace:
    """What functions made of what modules returned, in their order."""

    _operations: list[Operation] = field(default_factory=list)
    _derived: dict[int, Tensor] = field(default_factory=dict)

    def begin_at(self, output: Any) -> None:
        """Follow what becomes of the output of a module."""
        self._derived |= {id(t): t for _, t in tensors(output)}

    def note(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        result: Any,
    ) -> None:
        """Remember a call, if it is given what is followed."""
        given = tensors((list(args), dict(kwargs)))
        if len(self._operations) <= _LONGEST and any(id(t) in self._derived for _, t in given):
            operation = Operation(function, args, kwargs, result)
            self._operations.append(operation)
            self._derived |= {id(t): t for t in operation.changes}

    def goes_on_from(self, tensor: Tensor, names: Collection[str]) -> bool:
        """Return whether a tensor was given to one of some functions."""
        return any(
            getattr(operation.function, "__name__", "") in names
            and any(t is tensor for _, t in tensors((list(operation.args), dict(operation.kwargs))))
            for operation in self._operations
        )

    def to(self, scores: Tensor) -> list[Operation]:
        """Return what has to be computed for scores.

        Raises:
            AuditError: If that is a network of its own.
        """
        if len(self._operations) > _LONGEST:
            raise AuditError(
                "The validation step runs a network that is no module which is shown the images "
                "[B, C, H, W]; pass `forward`, the path of a submodule or a function `(module, "
                "images) -> scores`."
            )
        needed, found = {id(scores)}, []
        for operation in reversed(self._operations):
            if any(id(t) in needed for t in operation.changes):
                found.append(operation)
                given = tensors((list(operation.args), dict(operation.kwargs)))
                needed |= {id(t) for _, t in given}
        return found[::-1]


@dataclass(frozen=True)
class Continuation:
    """Goes on from what a module returned to the scores of a step.

    Attributes:
        operations: What is computed.
        output: What the module returned in the step.
        scores: What the step made of it.
        owners: The modules that own parameters, and their names, by the ids of the parameters:
            while a model is explained, others may stand in for them.
    """

    operations: Sequence[Operation]
    output: Any
    scores: Tensor
    owners: Mapping[int, tuple[nn.Module, str]]

    def __call__(self, output: Any) -> Tensor:
        """Return the scores for what the module returns now."""
        before, now = tensors(self.output), dict(tensors(output))
        known = {id(t): now[way] for way, t in before if way in now}
        device = next(iter(known.values())).device

        def exchanged(_: Any, leaf: Any) -> Any:
            if id(leaf) in known:
                return known[id(leaf)]
            if id(leaf) in self.owners:
                owner, name = self.owners[id(leaf)]
                return getattr(owner, name)
            if isinstance(leaf, Tensor):
                known[id(leaf)] = leaf.detach().clone().to(device)
                return known[id(leaf)]
            return leaf

        for operation in self.operations:
            args = mapped(list(operation.args), exchanged)
            kwargs = mapped(dict(operation.kwargs), exchanged)
            result = operation.function(*args, **kwargs)
            made = dict(tensors([result]))
            known |= {id(t): made[way] for way, t in tensors([operation.result]) if way in made}
        return known[id(self.scores)]


def parameter_owners(root: nn.Module) -> dict[int, tuple[nn.Module, str]]:
    """Return the module and the name of every parameter, by its id."""
    return {
        id(parameter): (module, name)
        for module in root.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    }
