"""Rule sets: what happens to the gradient at an operation of a given role.

A rule set is data, a table from roles to rules. A role that is not in the table keeps its ordinary
gradient, so the empty table is plain backpropagation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from libragrad_lightning.backward.graph import (
    Correction,
    Flow,
    Node,
    Operation,
    RecordedGraph,
    Role,
    Vocabulary,
)
from libragrad_lightning.backward.rules import (
    VOCABULARY,
    Rule,
    WeighAttention,
    divide_by_degree,
    divide_gradient,
    eager_activations,
    eager_attention,
    hold_dead_factors,
    identity_rule,
    ordinary_gradient,
    stop_denominator,
    stop_gradient,
    stop_statistic,
    stop_statistics,
    stop_weights,
)
from libragrad_lightning.lookup import named


@dataclass(frozen=True)
class RuleSet:
    """An immutable set of gradient rules.

    Attributes:
        name: Short name, used in log keys.
        rules: What happens at each role; a missing role keeps its ordinary gradient.
        vocabulary: What graph nodes compute, by their names.
    """

    name: str
    rules: Mapping[Role, Rule] = field(default_factory=dict, hash=False)
    vocabulary: Vocabulary = field(default_factory=lambda: VOCABULARY, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", dict(self.rules))

    def __repr__(self) -> str:
        return f"RuleSet({self.name!r})"

    def without(self, *roles: Role, name: str | None = None) -> RuleSet:
        """Return the rule set in which operations of these roles keep their ordinary gradient."""
        kept = {role: rule for role, rule in self.rules.items() if role not in roles}
        default = f"{self.name}_without_{'_'.join(role.value for role in roles)}"
        return replace(self, name=name or default, rules=kept)

    def overridden(self, rules: Mapping[Role, Rule], name: str) -> RuleSet:
        """Return the rule set with other rules for some roles."""
        return replace(self, name=name, rules={**self.rules, **rules})

    def recognized(self, graph: RecordedGraph) -> Mapping[Node, Operation]:
        """Return what nodes compute together that means something else by their names."""
        return {
            **eager_activations(graph, self.vocabulary),
            **eager_attention(graph, self.vocabulary),
        }

    def correct(self, operation: Operation, node: Node, flows: Sequence[Flow]) -> Correction:
        """Return the correction of a node: that of the rule for its role, with dead factors held.

        `hold_dead_factors` applies under every rule set, `PLAIN` too.
        """
        rule = self.rules.get(operation.role, ordinary_gradient)
        return hold_dead_factors(operation, rule(operation, node, flows), flows)


PLAIN = RuleSet("plain")
"""Ordinary gradients."""

LIBRA = RuleSet(
    "libra",
    {  # LINEAR keeps its ordinary gradient: Thm 1-3, Cor 1
        Role.PRODUCT: divide_gradient,  # Thm 4; Thm 5 beside constant factors
        Role.ACTIVATION: identity_rule,  # Thm 5, section 3.2
        Role.GATE: stop_gradient,  # Thm 5
        Role.STATISTIC: stop_statistic,  # Cor 2, section 3.4
        Role.ATTENTION: WeighAttention(weights=0.0, values=1.0),  # Thm 5 for matrix products
        Role.NORMALIZATION: stop_statistics,  # Cor 2, section 3.4; Thm 4 for a live scale
        Role.QUOTIENT: stop_denominator,  # Cor 2
        Role.WEIGHTING: stop_weights,  # Thm 5
        Role.POWER: divide_by_degree,  # Thm 4 for equal factors; Euler's theorem
    },
)
"""LibraGrad: every operation is FullGrad-complete (Mehri et al. 2025, Cor 3)."""

ATTN_LRP = LIBRA.overridden({Role.ATTENTION: WeighAttention(0.25, 0.5)}, "attn_lrp")
"""AttnLRP as the paper's authors emulate it: query and key at 1/4, value at 1/2.

Fused kernels and eager attention get the same gradients. A softmax that is no attention (a gate, a
pooling) is held constant, as under `LIBRA`.
"""

ALI_LRP = LIBRA.without(Role.ACTIVATION, Role.PRODUCT, name="ali_lrp")
"""Conservative LRP (Ali et al. 2022): attention and normalization only."""

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
    return named(RULE_SETS, rules, "rules", "rule set")
