"""The vocabulary of the autograd graph: which role each recorded operation plays in the theory.

An `Operation` states facts about a node that PyTorch records (which of its edges are factors, what
its gate is, which constant it adds). It says nothing about gradients: what a rule set does to an
operation of a given role is decided in `rule_sets`. The table itself stands in `vocabulary`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from torch import Tensor

Node: TypeAlias = Any
"""A node of the autograd graph (`torch.autograd.graph.Node`), whose saved tensors are dynamic."""

Edge: TypeAlias = tuple[Node, int]
"""A node and the number of one of its outputs; the node is None where no gradient is recorded."""

ConstantOf: TypeAlias = Callable[[int], Tensor | None]
"""Gives the value that enters a node at an edge, if that value is a constant of the explanation."""


class Role(Enum):
    """The roles that operations play in LibraGrad (Mehri et al. 2025, section 3)."""

    LINEAR = "linear"
    """Linear or piecewise linear in its live operands; constants add up (Thm 1-3, Cor 1)."""
    PRODUCT = "product"
    """Product of factors: FullGrad counts it once for every live factor (Prop 1, Thm 4)."""
    ACTIVATION = "activation"
    """Gated activation x * g(x) (Thm 5)."""
    GATE = "gate"
    """Bounded or normalised weight: its value is a constant (Thm 5)."""
    STATISTIC = "statistic"
    """Scale of a normalisation that is composed of smaller operations (section 3.4, Cor 2)."""
    ATTENTION = "attention"
    """Scaled dot-product attention: the weights are constant, the values live (Thm 5)."""
    NORMALIZATION = "normalization"
    """Fused normalisation: statistics that scale are constant, the mean is linear (section 3.4)."""
    QUOTIENT = "quotient"
    """Quotient: FullGrad counts it 0 times unless the denominator is constant (Prop 2, Cor 2)."""
    WEIGHTING = "weighting"
    """Weighted combination such as `lerp`: the weights are constant, the values live (Thm 5)."""
    POWER = "power"
    """Homogeneous of degree k: FullGrad counts it k times (Euler's theorem)."""


class AttentionPart(Enum):
    """What an operation of the role `ATTENTION` computes."""

    FUSED = "fused"
    """All of it; the edges are query, key, value and perhaps a mask."""
    SCORES = "scores"
    """The product of queries and keys."""
    SOFTMAX = "softmax"
    """The weights A, from the scores."""
    AVERAGE = "average"
    """The product of the weights and the values; they are the factors, in this order."""


@dataclass(frozen=True)
class Operation:
    """What a node of the graph computes, as far as LibraGrad needs to know.

    An operation of one's own needs an entry in the vocabulary of a rule set, under the name that
    autograd gives to its node; what its `forward` kept is read from the node:

        >>> import torch
        >>> from dataclasses import replace
        >>> from libragrad_lightning.backward import LIBRA, VOCABULARY, Operation, Role, grad
        >>> class Swish(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x * x.sigmoid()
        ...     @staticmethod
        ...     def backward(ctx, gradient):
        ...         x, = ctx.saved_tensors
        ...         s = x.sigmoid()
        ...         return gradient * s * (1 + x * (1 - s))
        >>> swish = Operation(Role.ACTIVATION, gate=lambda node: node.saved_tensors[0].sigmoid())
        >>> rules = replace(LIBRA, vocabulary=VOCABULARY.extended({"SwishBackward": swish}))
        >>> x = torch.tensor([-1.0, 2.0], requires_grad=True)
        >>> y = Swish.apply(x)
        >>> gradient, = grad(y.sum(), x, rules=rules)
        >>> torch.allclose(x * gradient, y)
        True

    Attributes:
        role: The role of the operation in the theory.
        factors: The edges whose product is formed (`PRODUCT`; `NORMALIZATION`: the input, then the
            scale), or the edges that stay live (`ATTENTION`, `QUOTIENT`, `WEIGHTING`, `POWER`, an
            `ACTIVATION` that is written out). Empty for the other roles.
        gate: For `ACTIVATION`, phi(x) / x; for `POWER`, the degree; in the dtype of the node.
        additive: The constant that the operation adds to its output, broadcastable to the output;
            None stands for "operands add up and each constant operand is a bias".
        input_gradient: For `NORMALIZATION`, the gradient of the live edge with constant statistics,
            from the node and the gradient of its output; for an `ACTIVATION` whose input and output
            differ in shape, the same with a constant gate.
        value: For operations that may be held constant, their value, read from what was saved.
        linear_outputs: For `STATISTIC`, the outputs that are linear in the operand, such as the
            mean that is computed beside a variance.
        applies: Whether the entry holds for a node; where it does not, the node's role is unknown.
        check: Raises an error if this node computes something that no rule can explain.
        contiguous: Whether PyTorch computes the ordinary gradient wrongly unless the gradient of
            the output is contiguous.
        identity: Whether every output is the operand at its place and depends on no other; a
            constant among them adds nothing here, but where its output does.
        part: For `ATTENTION`, which part of it; parts are found by their place in the graph.
        written: For `ACTIVATION`, whether the node is one of several that compute it together: the
            product of x and the gate, whose live edges are the `factors`, or a part of the gate.
    """

    role: Role
    factors: tuple[int, ...] = ()
    gate: Callable[[Node], Tensor | float] | None = None
    additive: Callable[[Node, ConstantOf], Tensor | None] | None = None
    input_gradient: Callable[[Node, Tensor], Tensor] | None = None
    value: Callable[[Node], Tensor] | None = None
    linear_outputs: tuple[int, ...] = ()
    applies: Callable[[Node], bool] | None = None
    check: Callable[[Node], None] | None = None
    contiguous: bool = False
    identity: bool = False
    part: AttentionPart = AttentionPart.FUSED
    written: bool = False


class Vocabulary(Mapping[str, Operation]):
    """An immutable table from the names of graph nodes to operations.

    A name matches exactly, or without the number of its overload (``MeanBackward1`` is found under
    ``MeanBackward``).
    """

    def __init__(self, operations: Mapping[str, Operation]) -> None:
        self._operations = dict(operations)

    def __getitem__(self, name: str) -> Operation:
        operation = self._operations.get(name)
        return operation if operation is not None else self._operations[re.sub(r"\d+$", "", name)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (
            name in self._operations or re.sub(r"\d+$", "", name) in self._operations
        )

    def __iter__(self) -> Any:
        return iter(self._operations)

    def __len__(self) -> int:
        return len(self._operations)

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
