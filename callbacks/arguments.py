"""Checks the arguments of the callback and turns names into objects."""

from __future__ import annotations

from collections.abc import Sequence

from libragrad_lightning.callbacks.measurement import METRICS, AuditSettings
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from libragrad_lightning.attribution import Method, Target, attribution_method, reward_function
from libragrad_lightning.backward import RuleSet, UnknownPolicy, rule_set
from libragrad_lightning.perturbation import check_levels


def audit_settings(
    *,
    rules: Sequence[str | RuleSet],
    method: str | Method,
    target: Target,
    reward: str,
    metrics: Sequence[str] | None,
    levels: Sequence[float],
    batch_size: int,
    unknown: UnknownPolicy,
) -> AuditSettings:
    """Return the settings that the arguments of `LibraGradAudit` name.

    Raises:
        MisconfigurationException: If a name is unknown or a number is out of range.
    """
    chosen = tuple(METRICS if metrics is None else metrics)
    strange = sorted(set(chosen) - set(METRICS))
    if strange:
        raise MisconfigurationException(
            f"LibraGradAudit does not know the metrics {strange}; `metrics` takes {list(METRICS)}."
        )
    if not rules:
        raise MisconfigurationException(
            "LibraGradAudit has nothing to explain with; `rules` needs at least one rule set."
        )
    try:
        return AuditSettings(
            rules=tuple(rule_set(r) for r in rules),
            method=attribution_method(method),
            reward=reward_function(reward),
            target=target,
            metrics=chosen,
            levels=check_levels(levels),
            batch_size=at_least(1, batch_size, "batch_size"),
            unknown=unknown,
        )
    except ValueError as error:
        raise MisconfigurationException(f"LibraGradAudit: {error}") from error


def at_least(least: int, value: int, argument: str) -> int:
    """Return the value.

    Raises:
        MisconfigurationException: If it is smaller than it may be.
    """
    if value < least:
        raise MisconfigurationException(
            f"LibraGradAudit needs `{argument}` of at least {least} but got {value}."
        )
    return value
