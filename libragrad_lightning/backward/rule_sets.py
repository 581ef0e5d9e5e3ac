"""Rule sets: what happens to the gradient at an operation of a given role.

A rule set is data, a table from roles to treatments. A role that is not in the table keeps its
ordinary gradient, so the empty table is plain backpropagation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

from libragrad_lightning.backward.operations import Node, Operation, Role, Vocabulary
from libragrad_lightning.backward.vocabulary import VOCABULARY


class Flow(Enum):
    """How a value depends on the explained tensor in the corrected graph."""

    CONSTANT = "constant"
    """Not at all: it depends on parameters alone."""
    DEAD = "dead"
    """Only through edges that a rule has pruned."""
    LIVE = "live"
    """Through at least one path that carries a gradient."""


@dataclass(frozen=True)
class Correction:
    """What is done to the gradients that one node hands on.

    Attributes:
        weights: One factor for every edge; 0 prunes the edge, 1 leaves the gradient alone.
        rewrite: Replaces the gradient of the first live edge, before the weights apply: a function
            of the node, that edge's ordinary gradient and the gradient of the node's output.
        dead_outputs: The outputs of the node that are held constant while others are not.
    """

    weights: tuple[float, ...]
    rewrite: Callable[[Node, Tensor, Tensor], Tensor] | None = None
    dead_outputs: tuple[int, ...] = ()


Treatment: TypeAlias = Callable[[Operation, Node, Sequence[Flow]], Correction]
"""Decides the correction of a node from its operation and the flows of its operands."""


def keep(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Leave the ordinary gradient (locally affine operations are complete, Thm 1)."""
    return Correction((1.0,) * len(flows))


def prune(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Hold the value of the operation constant (Thm 5), except for outputs that are linear."""
    if not operation.linear_outputs:
        return Correction((0.0,) * len(flows))
    outputs = range(len(node._input_metadata))
    dead = tuple(i for i in outputs if i not in operation.linear_outputs)
    return Correction((1.0,) * len(flows), dead_outputs=dead)


def share(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Give each of n live factors 1/n of its gradient (Thm 4); hold the others constant (Thm 5)."""
    live = [i for i in operation.factors if flows[i] is Flow.LIVE]
    weights = [1.0] * len(flows)
    for i in operation.factors:
        weights[i] = 1.0 / len(live) if i in live else 0.0
    return Correction(tuple(weights))


def hold_gate(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Scale the gradient of x * g(x) by the constant g(x) (Thm 5)."""

    def rewrite(node: Node, ordinary: Tensor, outgoing: Tensor) -> Tensor:
        if operation.input_gradient is not None:
            return operation.input_gradient(node, outgoing)
        assert operation.gate is not None
        return outgoing * operation.gate(node)

    return Correction((1.0,) * len(flows), rewrite)


def hold_others(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Keep the gradients of some operands alone: attention's value, the numerator (Thm 5)."""
    return Correction(tuple(float(i in operation.factors) for i in range(len(flows))))


def hold_statistics(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Differentiate a normalisation with the statistics that scale held constant (section 3.4)."""
    if flows[operation.factors[0]] is Flow.CONSTANT:
        return keep(operation, node, flows)

    def rewrite(node: Node, ordinary: Tensor, outgoing: Tensor) -> Tensor:
        assert operation.input_gradient is not None
        return operation.input_gradient(node, outgoing)

    return Correction((1.0,) * len(flows), rewrite)


def divide_by_degree(operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
    """Divide the gradient of a homogeneous function by its degree (Euler's theorem).

    A negative degree makes the value a reciprocal, which is held constant (Cor 2). An exponent that
    depends on the explained tensors is held constant too (Thm 5).
    """
    assert operation.gate is not None
    degree = operation.gate(node)
    if bool(torch.all(torch.as_tensor(degree) <= 0)):
        return prune(operation, node, flows)
    base = (1.0, *[0.0] * (len(flows) - 1))
    if isinstance(degree, Tensor):
        return Correction(base, _rewrite_power(degree))
    return Correction(tuple(b / degree for b in base))


def _rewrite_power(degree: Tensor) -> Callable[[Node, Tensor, Tensor], Tensor]:
    """Write x to the power k as x times a constant; exponents may be of either sign by element."""

    def rewrite(node: Node, ordinary: Tensor, outgoing: Tensor) -> Tensor:
        gate = node._saved_self ** (degree - 1)
        return (outgoing * gate).sum_to_size(ordinary.shape)

    return rewrite


@dataclass(frozen=True)
class WeighAttention:
    """A treatment that scales the gradients of query, key and value of fused attention."""

    query: float
    key: float
    value: float

    def __call__(self, operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
        """Return the three weights; a mask gets no gradient."""
        return Correction((self.query, self.key, self.value, *[0.0] * (len(flows) - 3)))


@dataclass(frozen=True)
class RuleSet:
    """An immutable set of gradient rules.

    Attributes:
        name: Short name, used in log keys.
        treatments: What happens at each role; a missing role keeps its ordinary gradient.
        vocabulary: Which graph nodes have which role.
    """

    name: str
    treatments: Mapping[Role, Treatment] = field(default_factory=dict)
    vocabulary: Vocabulary = field(default_factory=lambda: VOCABULARY)

    def __post_init__(self) -> None:
        object.__setattr__(self, "treatments", dict(self.treatments))

    def __repr__(self) -> str:
        return f"RuleSet({self.name!r})"

    def without(self, *roles: Role, name: str | None = None) -> RuleSet:
        """Return the rule set in which operations of these roles keep their ordinary gradient."""
        kept = {role: t for role, t in self.treatments.items() if role not in roles}
        default = f"{self.name}_without_{'_'.join(role.value for role in roles)}"
        return replace(self, name=name or default, treatments=kept)

    def overridden(self, treatments: Mapping[Role, Treatment], name: str) -> RuleSet:
        """Return the rule set with other treatments for some roles."""
        return replace(self, name=name, treatments={**self.treatments, **treatments})

    def correct(self, operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
        """Return the correction of a node under this rule set.

        A dead factor beside a live one is a constant under every rule set: a gradient that entered
        it could only end in biases that do not add to the output. A product of dead factors is a
        constant that may be added to something live; the last of them, the value in
        attention, leads to it.
        """
        correction = self.treatments.get(operation.role, keep)(operation, node, flows)
        dead = [i for i in operation.factors if flows[i] is Flow.DEAD]
        if not dead:
            return correction
        live = any(flows[i] is Flow.LIVE for i in operation.factors)
        held = dead if live else dead[:-1]
        weights = [0.0 if i in held else w for i, w in enumerate(correction.weights)]
        if not live:
            weights[dead[-1]] = 1.0
        return replace(correction, weights=tuple(weights))


PLAIN = RuleSet("plain")
"""Ordinary gradients."""

LIBRA = RuleSet(
    "libra",
    {
        Role.PRODUCT: share,
        Role.ACTIVATION: hold_gate,
        Role.GATE: prune,
        Role.STATISTIC: prune,
        Role.ATTENTION: hold_others,
        Role.NORMALIZATION: hold_statistics,
        Role.QUOTIENT: hold_others,
        Role.WEIGHTING: hold_others,
        Role.POWER: divide_by_degree,
    },
)
"""LibraGrad: every operation is FullGrad-complete (Mehri et al. 2025, Cor 3)."""

ATTN_LRP = LIBRA.overridden({Role.ATTENTION: WeighAttention(0.25, 0.25, 0.5)}, "attn_lrp")
"""AttnLRP as the paper's authors emulate it: query and key at 1/4, value at 1/2."""

ALI_LRP = LIBRA.without(Role.ACTIVATION, Role.PRODUCT, name="ali_lrp")
"""Conservative LRP (Ali et al. 2022): attention and normalisation only."""

DECOMPX = LIBRA.without(Role.PRODUCT, name="decompx")
"""DecompX without biases, as the paper's authors emulate it: no rule for gated products."""

RULE_SETS: Mapping[str, RuleSet] = MappingProxyType(
    {rules.name: rules for rules in (PLAIN, LIBRA, ATTN_LRP, ALI_LRP, DECOMPX)}
)
"""The rule sets that can be named in a configuration file."""


def rule_set(rules: str | RuleSet) -> RuleSet:
    """Return the rule set of that name, or the rule set itself.

    Raises:
        ValueError: If there is no rule set of that name.
    """
    if isinstance(rules, RuleSet):
        return rules
    if rules not in RULE_SETS:
        raise ValueError(f"Unknown rule set {rules!r}; `rules` takes one of {sorted(RULE_SETS)}.")
    return RULE_SETS[rules]
