"""Rule sets: what happens to the gradient at an operation of a given role.

A rule set is data, a table from roles to treatments. A role that is not in the table keeps its
ordinary gradient, so the empty table is plain backpropagation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from libragrad_lightning.backward.operations import Node, Operation, Role, Vocabulary
from libragrad_lightning.backward.treatments import (
    Correction,
    Flow,
    Treatment,
    WeighAttention,
    divide_by_degree,
    hold_gate,
    hold_others,
    hold_statistics,
    keep,
    prune,
    share,
)
from libragrad_lightning.backward.vocabulary import VOCABULARY


@dataclass(frozen=True)
class RuleSet:
    """An immutable set of gradient rules.

    Attributes:
        name: Short name, used in log keys.
        treatments: What happens at each role; a missing role keeps its ordinary gradient.
        vocabulary: Which graph nodes have which role.
    """

    name: str
    treatments: Mapping[Role, Treatment] = field(default_factory=dict, hash=False)
    vocabulary: Vocabulary = field(default_factory=lambda: VOCABULARY, hash=False)

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
        Role.ATTENTION: WeighAttention(weights=0.0, values=1.0),
        Role.NORMALIZATION: hold_statistics,
        Role.QUOTIENT: hold_others,
        Role.WEIGHTING: hold_others,
        Role.POWER: divide_by_degree,
    },
)
"""LibraGrad: every operation is FullGrad-complete (Mehri et al. 2025, Cor 3)."""

ATTN_LRP = LIBRA.overridden({Role.ATTENTION: WeighAttention(0.25, 0.5)}, "attn_lrp")
"""AttnLRP as the paper's authors emulate it: query and key at 1/4, value at 1/2.

Fused kernels and attention that is written out get the same gradients. A softmax that is no
attention (a gate, a pooling) is held constant, as under `LIBRA`.
"""

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
