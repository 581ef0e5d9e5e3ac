"""What a node of the graph computes, as far as LibraGrad needs to know, and the table of names.

An `Operation` states facts about nodes that PyTorch records. It says nothing about gradients: what
a rule set does to an operation of a given role is decided in `rule_sets`. `rules` has one class of
operations for every role, and the table that is filled with them, `rules.vocabulary`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, TypeAlias

from torch import Tensor

from libragrad_lightning.backward.graph.edges import Node

ConstantOf: TypeAlias = Callable[[int], Tensor | None]
"""Gives the value that enters a node at an edge, if that value is a constant of the explanation."""

Addition: TypeAlias = Callable[[Node, ConstantOf], Tensor | None]
"""Gives the constant that a node adds to its output, broadcastable to the output."""


class Role(Enum):
    """The roles that operations play in LibraGrad (Mehri et al. 2025, section 3)."""

    LINEAR = "linear"
    """Linear or piecewise linear in its live operands; constants add up (Thm 1-3, Cor 1)."""
    PRODUCT = "product"
    """Product of factors: FullGrad counts it once for every live factor (Prop 1, Thm 4)."""
    ACTIVATION = "activation"
    """Gated activation x * g(x) (Thm 5)."""
    GATE = "gate"
    """Bounded or normalized weight: its value is a constant (Thm 5)."""
    STATISTIC = "statistic"
    """Scale of a normalization that is composed of smaller operations (section 3.4, Cor 2)."""
    ATTENTION = "attention"
    """Scaled dot-product attention: the weights are constant, the values live (Thm 5)."""
    NORMALIZATION = "normalization"
    """Fused normalization: statistics that scale are constant, the mean is linear (section 3.4)."""
    QUOTIENT = "quotient"
    """Quotient: FullGrad counts it 0 times unless the denominator is constant (Prop 2, Cor 2)."""
    WEIGHTING = "weighting"
    """Weighted combination such as `lerp`: the weights are constant, the values live (Thm 5)."""
    POWER = "power"
    """Homogeneous of degree k: FullGrad counts it k times (Euler's theorem)."""


class Elementwise(Enum):
    """How an element of a result depends on the elements of the operands at the same place."""

    SUM = "sum"
    """It is their sum or one of them; a constant may be among them."""
    PROPORTIONAL = "proportional"
    """It is homogeneous in each of them."""
    CURVED = "curved"
    """It is another function of them."""


class Function(Enum):
    """Functions that others are recognized by, or whose constants must be observed."""

    SOFTMAX = "softmax"
    LOG_SOFTMAX = "log_softmax"
    LOGSUMEXP = "logsumexp"
    EXP = "exp"
    RECIPROCAL = "reciprocal"
    REDUCTION = "sum over axes"
    DIFFERENCE = "difference"
    CLAMP = "clamp"
    STEP = "step"
    """Constant but for its jumps, such as `sign`."""
    THRESHOLD = "threshold"
    """Puts a number in place of what is small."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What a node computes: the facts that operations of all roles share.

    Attributes:
        additive: The constant that the operation adds to its output; None stands for "operands add
            up and each constant operand is a bias".
        value: For operations that may be held constant, their value, read from what was saved.
        applies: Whether the entry holds for a node; where it does not, the node is unknown.
        elementwise: How its elements depend on those of its operands; None if they mix.
        function: What it computes, if others are recognized by it.
        in_place: Names of the functions that do it in place, as on a view.
    """

    role: ClassVar[Role]
    is_identity: ClassVar[bool] = False
    """Whether every output is the operand at its place and depends on no other."""
    needs_contiguous: ClassVar[bool] = False
    """Whether PyTorch differentiates wrongly unless the gradient of the output is contiguous."""

    additive: Addition | None = None
    value: Callable[[Node], Tensor] | None = None
    applies: Callable[[Node], bool] | None = None
    elementwise: Elementwise | None = None
    function: Function | None = None
    in_place: tuple[str, ...] = ()

    @property
    def factor_edges(self) -> tuple[int, ...]:
        """The edges of the factors that keep a gradient, the one that leads to values last."""
        return ()

    def check(self, node: Node) -> None:
        """Raise a `LibraGradError` if this node computes something that no rule can explain."""

    def may_hide_constant(self, node: Node) -> bool:
        """Return whether a node may add a constant that autograd records nothing of."""
        return False


class Vocabulary(Mapping[str, Operation]):
    """An immutable table from the names of graph nodes to operations.

    A name matches exactly, or without the number of its overload (``MeanBackward1`` is found under
    ``MeanBackward``).
    """

    def __init__(self, operations: Mapping[str, Operation]) -> None:
        self._operations = dict(operations)
        self._in_place = {name: o for o in operations.values() for name in o.in_place}
        self._looked_up: dict[str, Operation | None] = {}

    def __getitem__(self, name: str) -> Operation:
        operation = self._operations.get(name)
        return operation if operation is not None else self._operations[_without_number(name)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (
            name in self._operations or _without_number(name) in self._operations
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._operations)

    def __len__(self) -> int:
        return len(self._operations)

    def of(self, node: Node) -> Operation | None:
        """Return the operation of a node by its name; None if unknown, or if there is no node."""
        if node is None:
            return None
        name = node.name()
        if name not in self._looked_up:
            self._looked_up[name] = self.get(name)
        return self._looked_up[name]

    def in_place(self, function: str) -> Operation | None:
        """Return the operation that a function does in place; None if it is unknown."""
        return self._in_place.get(function)

    def extended(self, operations: Mapping[str, Operation]) -> Vocabulary:
        """Return a vocabulary with more names.

        Raises:
            ValueError: If a name is in the table already; `replaced` is for that.
        """
        taken = sorted(set(operations) & set(self._operations))
        if taken:
            raise ValueError(
                f"The operations {taken} are in the vocabulary; use `replaced` to change them."
            )
        return Vocabulary({**self._operations, **operations})

    def replaced(self, operations: Mapping[str, Operation]) -> Vocabulary:
        """Return a vocabulary in which names that are in the table mean something else.

        Raises:
            ValueError: If a name is not in the table; `extended` is for that.
        """
        missing = sorted(set(operations) - set(self._operations))
        if missing:
            raise ValueError(
                f"The operations {missing} are not in the vocabulary; use `extended` to add them."
            )
        return Vocabulary({**self._operations, **operations})


def _without_number(name: str) -> str:
    return name.rstrip("0123456789")
