"""Checks the arguments of the callback and turns names into objects."""

from __future__ import annotations

from collections.abc import Sequence

from libragrad_lightning.callbacks.audit_metrics import DEFAULT_METRICS, METRICS
from libragrad_lightning.callbacks.settings import AuditSettings
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from libragrad_lightning.attribution import Method, Target, attribution_method, reward_function
from libragrad_lightning.backward import RuleSet, UnknownPolicy, rule_set
from libragrad_lightning.perturbation import PERTURBATIONS, check_levels


def audit_settings(
    *,
    rules: Sequence[str | RuleSet],
    method: str | Method,
    target: Target,
    reward: str,
    metrics: Sequence[str] | None,
    levels: Sequence[float],
    perturbation: str,
    batch_size: int,
    unknown: UnknownPolicy,
    backbone: str | None,
    blocks: Sequence[str] | None,
    precision: str,
) -> AuditSettings:
    """Return the settings that the arguments of `LibraGradAudit` name.

    Raises:
        MisconfigurationException: If a name is unknown or a number is out of range.
    """
    if not rules:
        raise MisconfigurationException(
            "LibraGradAudit has nothing to explain with; `rules` needs at least one rule set."
        )
    one_of(tuple(PERTURBATIONS), perturbation, "perturbation")
    try:
        return AuditSettings(
            rules=tuple(rule_set(r) for r in rules),
            method=attribution_method(method),
            reward=reward_function(reward),
            target=target,
            metrics=_metrics(metrics, check_levels(levels)),
            levels=check_levels(levels),
            perturbation=perturbation,
            batch_size=at_least(1, batch_size, "batch_size"),
            unknown=unknown,
            backbone=backbone,
            blocks=None if blocks is None else tuple(blocks),
            in_float32=one_of(("float32", "module"), precision, "precision") == "float32",
        )
    except ValueError as error:
        raise MisconfigurationException(f"LibraGradAudit: {error}") from error


def probe_argument(probe: str | Sequence[int]) -> str | tuple[int, ...]:
    """Return the argument `probe`, a list of indices as a tuple.

    Raises:
        MisconfigurationException: If it is neither a known name nor a list of different indices.
    """
    if isinstance(probe, str):
        return one_of(("first", "stratified"), probe, "probe")
    indices = tuple(probe)
    if not indices or min(indices) < 0 or len(set(indices)) < len(indices):
        raise MisconfigurationException(
            "LibraGradAudit needs `probe` to be 'first', 'stratified' or a list of different places"
            f" in the validation loader, from 0, but got {list(indices)}."
        )
    return indices


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


def positive(value: float | None, argument: str) -> float | None:
    """Return the value, which may be None.

    Raises:
        MisconfigurationException: If it is not above 0.
    """
    if value is not None and not value > 0:
        raise MisconfigurationException(
            f"LibraGradAudit needs `{argument}` above 0, or None, but got {value}."
        )
    return value


def one_of(names: Sequence[str], value: str, argument: str) -> str:
    """Return the value.

    Raises:
        MisconfigurationException: If it is none of the names.
    """
    if value not in names:
        raise MisconfigurationException(
            f"LibraGradAudit does not know {value!r}; `{argument}` takes one of {list(names)}."
        )
    return value


def _metrics(names: Sequence[str] | None, levels: Sequence[float]) -> tuple[str, ...]:
    chosen = tuple(DEFAULT_METRICS if names is None else names)
    strange = sorted(set(chosen) - set(METRICS))
    if strange:
        raise MisconfigurationException(
            f"LibraGradAudit does not know the metrics {strange}; `metrics` takes {list(METRICS)}."
        )
    for name in chosen:
        try:
            METRICS[name].create(levels)
        except ValueError as error:
            raise MisconfigurationException(
                f"LibraGradAudit cannot measure {name!r} with `levels` {list(levels)}: {error}"
            ) from error
    return chosen
