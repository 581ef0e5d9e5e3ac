"""What is compared: attribution methods under rule sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from libragrad_lightning.attribution import (
    METHODS,
    IntegratedGradients,
    Method,
    SmoothGrad,
    WeightedIntegratedGradients,
    explain_methods,
)
from libragrad_lightning.backward import (
    LIBRA,
    RULE_SETS,
    LibraGradError,
    Role,
    RuleSet,
)
from libragrad_lightning.models import TokenModel

RULE_FREE = frozenset({"attention_rollout", "caap", "random", "raw_attention"})
"""Methods that use no gradient."""

ABLATIONS: Mapping[str, RuleSet] = {
    rules.name: rules
    for rules in (
        LIBRA.without(Role.ATTENTION, name="no attention"),
        LIBRA.without(Role.NORMALIZATION, name="no normalization"),
        LIBRA.without(Role.ATTENTION, Role.NORMALIZATION, name="no attention, no normalization"),
        LIBRA.without(Role.ACTIVATION, name="no activation"),
        LIBRA.without(Role.PRODUCT, name="no gate"),
    )
}
"""LibraGrad without some of its rules (paper, Table 5)."""

RULES: Mapping[str, RuleSet] = {**RULE_SETS, **ABLATIONS}

_OTHER_RULES = ("attn_lrp", "ali_lrp", "decompx")
_METHODS_OF_OTHER_RULES = ("input_x_gradient", "fullgrad_plus")


@dataclass(frozen=True, order=True)
class Row:
    """An attribution method under a rule set, both by name."""

    method: str
    rules: str

    def __str__(self) -> str:
        """Return the name under which results are kept."""
        return f"{self.method}/{self.rules}"


def named_methods(steps: int) -> dict[str, Method]:
    """Return all methods, those of many passes with that number of passes."""
    return {
        **METHODS,
        "integrated_gradients": IntegratedGradients(steps),
        "integrated_gradients_weighted": WeightedIntegratedGradients(steps),
        "smoothgrad": SmoothGrad(steps),
    }


def method_rows(methods: Sequence[str]) -> list[Row]:
    """Return every method under plain gradients and under LibraGrad."""
    rows = [Row(name, "plain") for name in methods]
    return rows + [Row(name, "libra") for name in methods if name not in RULE_FREE]


def all_rows(methods: Sequence[str]) -> list[Row]:
    """Return the rows of `method_rows`, those of other rule sets, and the ablations."""
    others = [Row(m, rules) for rules in _OTHER_RULES for m in _METHODS_OF_OTHER_RULES]
    return method_rows(methods) + others + [Row("fullgrad_plus", name) for name in ABLATIONS]


def completeness_rows() -> list[Row]:
    """Return the methods that might add up to the output, and FullGrad under every rule set."""
    rows = [
        Row(method, rules)
        for method in ("input_x_gradient", "integrated_gradients")
        for rules in ("plain", "libra")
    ]
    return rows + [Row("fullgrad", rules) for rules in RULES]


def applicable(model: TokenModel, image: Tensor) -> list[str]:
    """Return the names of the methods that can explain a model.

    Args:
        model: The model and its tokens.
        image: `[1, C, H, W]`.
    """
    names = []
    for name, method in named_methods(steps=1).items():
        try:
            explain_methods(model, image, methods={name: method})
        except LibraGradError:
            continue
        names.append(name)
    return names
