"""The way from what a module returned to the scores that a step uses, function by function.

A step may go on with what a module returned: a head, a temperature, similarities to prompts. What
it computes is remembered as it happens, so that it can be computed of other images without running
the step again, which would do twice whatever else it does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from libragrad_lightning.audit.errors import AuditError
from libragrad_lightning.audit.trees import Way, mapped, tensors

_LONGEST = 100
"""More functions are a network of its own, which is no module that is shown the images."""
_MOST = 5000
"""More are not remembered."""
_IMAGE_AXES = 4


@dataclass(frozen=True)
class Operation:
    """A function that was called, with its arguments and what it returned."""

    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    result: Any

    @property
    def given(self) -> list[Tensor]:
        """The tensors among the arguments."""
        return [t for _, t in tensors((list(self.args), dict(self.kwargs)))]

    @property
    def overwritten(self) -> list[Tensor]:
        """The tensors that hold something else afterwards."""
        name = getattr(self.function, "__name__", "")
        in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
        return [t for _, t in tensors(list(self.args[:1]))] if in_place else []

    def makes(self, needed: Collection[int], storages: Collection[int]) -> bool:
        """Return whether it makes one of some tensors, or overwrites one through a view."""
        made = [t for _, t in tensors([self.result])]
        return any(id(t) in needed for t in made) or any(
            id(t) in needed or _storage(t) in storages for t in self.overwritten
        )


@dataclass
class Trace:
    """What functions made of what modules returned, and of parameters, in their order."""

    _operations: list[Operation] = field(default_factory=list)
    _of_images: dict[int, Tensor] = field(default_factory=dict)
    _of_parameters: dict[int, Tensor] = field(default_factory=dict)
    _of_batch: dict[int, Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """How many functions have been remembered."""
        return len(self._operations)

    def know_parameters(self, parameters: Iterable[Tensor]) -> None:
        """Follow what becomes of parameters too."""
        self._of_parameters |= {id(p): p for p in parameters}

    def know_batch(self, batch: Any) -> None:
        """Tell what becomes of a batch from other tensors; images are followed by other means."""
        self._of_batch |= {id(t): t for _, t in tensors(batch) if t.dim() < _IMAGE_AXES}

    def pass_on(self, arguments: Any, output: Any) -> None:
        """Note a call inside of which no function is watched."""
        if any(id(t) in self._of_batch for _, t in tensors(arguments)):
            self._of_batch |= {id(t): t for _, t in tensors(output)}

    def is_of_batch(self, tensor: Tensor) -> bool:
        """Return whether a tensor is a part of the batch, or made of one without images."""
        return id(tensor) in self._of_batch and id(tensor) not in self._of_images

    def begin_at(self, output: Any) -> None:
        """Follow what becomes of the output of a module."""
        self._of_images |= {id(t): t for _, t in tensors(output)}

    def note(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        result: Any,
    ) -> None:
        """Remember a call, if it is given what is followed."""
        operation = Operation(function, [_as_it_is(a) for a in args], dict(kwargs), result)
        given = operation.given
        of_images = any(id(t) in self._of_images for t in given)
        if any(id(t) in self._of_batch for t in given) and not of_images:
            changed = [t for _, t in tensors([result])] + operation.overwritten
            self._of_batch |= {id(t): t for t in changed}
        if len(self._operations) < _MOST and (
            of_images or any(id(t) in self._of_parameters for t in given)
        ):
            self._operations.append(operation)
            followed = self._of_images if of_images else self._of_parameters
            made = [t for _, t in tensors([result])]
            followed |= {id(t): t for t in (*made, *operation.overwritten)}

    def goes_on_from(self, tensor: Tensor, names: Collection[str]) -> bool:
        """Return whether a tensor was given to one of some functions."""
        return any(
            getattr(operation.function, "__name__", "") in names
            and any(t is tensor for t in operation.given)
            for operation in self._operations
        )

    def to(self, scores: Tensor, until: int) -> list[Operation]:
        """Return what has to be computed for scores.

        Args:
            scores: The scores.
            until: How many functions had been remembered when they were used.

        Raises:
            AuditError: If that is a network of its own.
        """
        found = self._needed(scores, until, constants=())
        if len(found) > _LONGEST:
            # What is made of parameters alone may be long, as embeddings of texts are.
            found = self._needed(scores, until, constants=self._of_parameters)
        if len(found) > _LONGEST:
            raise AuditError(
                "The validation step runs a network that is no module which is shown the images "
                "[B, C, H, W]; pass `forward`, the path of a submodule or a function `(module, "
                "images) -> scores`."
            )
        reached = any(id(t) in self._of_images for operation in found for t in operation.given)
        return found if reached else []

    def _needed(self, scores: Tensor, until: int, constants: Collection[int]) -> list[Operation]:
        needed, storages, found = {id(scores)}, {_storage(scores)}, []
        for operation in reversed(self._operations[:until]):
            if operation.makes(needed, storages):
                found.append(operation)
                given = [t for t in operation.given if id(t) not in constants]
                needed |= {id(t) for t in given}
                storages |= {_storage(t) for t in given}
        return found[::-1]


class _Slot:
    """Where a tensor stands that is computed anew."""

    __slots__ = ()


class _Parameter:
    """A parameter by its owner: while a model is explained, others may stand in for it."""

    __slots__ = ("name", "owner")

    def __init__(self, owner: nn.Module, name: str) -> None:
        self.owner, self.name = owner, name


@dataclass(frozen=True)
class Continuation:
    """Goes on from what a module returned to the scores of a step; holds nothing of the step.

    Attributes:
        starts: Where the tensors stand that the module returns, by the ways to them.
        operations: Functions, their arguments, and where their results stand.
        scores: Where the scores stand.
    """

    starts: Mapping[Way, _Slot]
    operations: Sequence[tuple[Callable[..., Any], Any, Any, Mapping[Way, _Slot]]]
    scores: _Slot

    def __call__(self, output: Any) -> Tensor:
        """Return the scores for what the module returns now."""
        now = dict(tensors(output))
        known = {slot: now[way] for way, slot in self.starts.items() if way in now}
        like = next(iter(known.values()))

        def filled(_: Way, leaf: Any) -> Any:
            if isinstance(leaf, _Slot):
                return known[leaf]
            if isinstance(leaf, _Parameter):
                return getattr(leaf.owner, leaf.name)
            if isinstance(leaf, Tensor):
                leaf = leaf.to(like.device)
                return leaf.to(like.dtype) if leaf.dtype in _HALF else leaf
            return leaf

        for function, args, kwargs, results in self.operations:
            result = function(*mapped(args, filled), **mapped(kwargs, filled))
            made = dict(tensors([result]))
            known |= {slot: made[way] for way, slot in results.items() if way in made}
        return known[self.scores]


_HALF = (torch.float16, torch.bfloat16)


def continuation(
    operations: Sequence[Operation],
    returned: Mapping[Way, Tensor],
    scores: Tensor,
    owners: Mapping[int, tuple[nn.Module, str]],
) -> Continuation:
    """Return what goes on from what a module returned to scores.

    Args:
        operations: What is computed.
        returned: What the module returned in the step, by the ways to it.
        scores: What the step made of it.
        owners: The modules that own parameters, and their names, by the ids of the parameters.
    """
    slots: dict[int, _Slot] = {}

    def slot(tensor: Tensor) -> _Slot:
        return slots.setdefault(id(tensor), _Slot())

    starts = {way: slot(t) for way, t in returned.items()}

    def held(_: Way, leaf: Any) -> Any:
        if id(leaf) in slots:
            return slots[id(leaf)]
        if id(leaf) in owners:
            return _Parameter(*owners[id(leaf)])
        return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf

    program = []
    for operation in operations:
        # Results are made anew, so there is nothing to write them to.
        kwargs = {k: v for k, v in operation.kwargs.items() if k != "out"}
        args, kwargs = mapped(list(operation.args), held), mapped(kwargs, held)
        results = {way: slot(t) for way, t in tensors([operation.result])}
        program.append((operation.function, args, kwargs, results))
    return Continuation(starts, program, slots[id(scores)])


def parameter_owners(root: nn.Module) -> dict[int, tuple[nn.Module, str]]:
    """Return the module and the name of every parameter, by its id."""
    return {
        id(parameter): (module, name)
        for module in root.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    }


def _as_it_is(argument: Any) -> Any:
    """Return a copy of a list, which the step may change."""
    return list(argument) if type(argument) is list else argument


def _storage(tensor: Tensor) -> int:
    """Return a number that tensors have in common which share their memory."""
    try:
        return tensor.untyped_storage().data_ptr() or -id(tensor)
    except (RuntimeError, NotImplementedError):
        return -id(tensor)
