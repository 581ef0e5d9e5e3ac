"""What is audited, how, and what is measured: the arguments, checked and turned into objects."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torchmetrics import Metric

from libragrad_lightning.attribution import Method, Target
from libragrad_lightning.attribution.methods import attribution_method
from libragrad_lightning.attribution.rewards import reward_function
from libragrad_lightning.attribution.tasks import TASKS
from libragrad_lightning.audit.arguments import at_least, one_of
from libragrad_lightning.audit.errors import AuditError
from libragrad_lightning.audit.learning import Source
from libragrad_lightning.audit.metric_table import DEFAULT_METRICS, METRICS
from libragrad_lightning.audit.own_metrics import needs_of
from libragrad_lightning.audit.selection import ProbeRequest
from libragrad_lightning.backward import RuleSet, UnknownPolicy, rule_set
from libragrad_lightning.perturbation import LEVELS, PERTURBATIONS
from libragrad_lightning.perturbation.deletion import check_levels

_PRECISIONS = ("explained", "bfloat16")


@dataclass(frozen=True)
class Deletion:
    """How patches are deleted to test whether the model needs them.

    Args:
        perturbation: What deletion does to patches: ``tokens`` (leave them out where the model
            allows it, else zero them), ``drop_tokens``, ``zero_tokens``, ``pixels_zero``,
            ``pixels_mean``, ``pixels_blur``, ``pixels_noise`` or ``pixels_road`` (slow).
        levels: Fractions of patches to delete.
        precision: In which precision images without patches are scored: that of the explanation
            (``explained``), or ``bfloat16`` by autocast, which is faster on CUDA. What that does is
            measured on 8 images of every audit and logged as ``<name>/deletion_rounding``: the
            largest difference of logits, relative to their standard deviation.
    """

    perturbation: str = "tokens"
    levels: Sequence[float] = LEVELS
    precision: Literal["explained", "bfloat16"] = "explained"


@dataclass(frozen=True)
class AuditConfig:
    """What is explained, how, and what is measured.

    Attributes:
        source: How samples and scores are taken from validation steps.
        request: Which images make up the probe set.
        rules: The rule sets that are compared.
        method: The attribution method.
        reward: What is differentiated, a name or a function.
        target: Which classes are explained, and scored under deletion.
        metrics: Names from `METRICS`.
        asked: Whether the user asked for these metrics.
        own_metrics: Metrics of the user's own.
        levels: Deletion levels.
        perturbation: What deletion does to patches, a name from `PERTURBATIONS`.
        batch_size: Images per explanation, 0 for as many as there is room for.
        unknown: What to do about operations without a role.
        backbone: Path of the submodule in which blocks are looked for, or None.
        blocks: Paths of the blocks, or None to find them.
        in_float32: Whether half-precision weights are explained in float32.
        completeness_on: Of how many images attributions are added up for the logit: ``some`` or
            ``all``.
        deletes_in_bfloat16: Whether images without patches are scored in bfloat16.
    """

    source: Source
    request: ProbeRequest
    rules: tuple[RuleSet, ...]
    method: Method
    reward: str | Callable[..., Any]
    target: Target
    metrics: tuple[str, ...]
    asked: bool
    own_metrics: tuple[Metric, ...]
    levels: tuple[float, ...]
    perturbation: str
    batch_size: int
    unknown: UnknownPolicy
    backbone: str | None
    blocks: tuple[str, ...] | None
    in_float32: bool
    completeness_on: str = "some"
    deletes_in_bfloat16: bool = False

    @property
    def needs(self) -> set[str]:
        """What metrics need beside the maps, as in `MetricEntry`."""
        own = (need for metric in self.own_metrics for need in needs_of(metric))
        return {*own, *(METRICS[name].needs for name in self.metrics)}

    @property
    def logged_names(self) -> list[str]:
        """The names under which metrics are logged, those of the user's own by their classes."""
        return [*self.metrics, *(type(metric).__name__ for metric in self.own_metrics)]

    @property
    def rule_names(self) -> list[str]:
        """The names of the rule sets."""
        return [rules.name for rules in self.rules]

    def state(self) -> dict[str, Any]:
        """Return what the curves of an audit depend on, as a checkpoint can hold it.

        Functions stand there by their names.
        """
        request = self.request
        probe = request.probe if isinstance(request.probe, str) else list(request.probe)
        return {
            "probe": probe,
            "max_samples": request.max_samples,
            "dataloader_idx": request.dataloader_idx,
            "forward": _named(self.source.forward),
            "task": self.source.task,
            "rules": self.rule_names,
            "method": _named(self.method),
            "reward": _named(self.reward),
            "target": _named(self.target),
            "levels": [float(level) for level in self.levels],
            "perturbation": self.perturbation,
            "deletes_in_bfloat16": self.deletes_in_bfloat16,
            "blocks": None if self.blocks is None else list(self.blocks),
            "backbone": self.backbone,
            "completeness_on": self.completeness_on,
        }


def audit_config(
    *,
    source: Source,
    request: ProbeRequest,
    rules: str | RuleSet | Sequence[str | RuleSet],
    method: str | Method,
    target: Target,
    reward: str | Callable[..., Any],
    metrics: str | Metric | Sequence[str | Metric] | None,
    deletion: Deletion,
    batch_size: int | str,
    unknown: UnknownPolicy,
    backbone: str | None,
    blocks: Sequence[str] | None,
    precision: str,
    completeness_on: str = "some",
) -> AuditConfig:
    """Return the configuration that the arguments of `LibraGradAudit` name.

    Raises:
        AuditError: If a name is unknown or a number is out of range.
    """
    chosen = _listed(rules, (str, RuleSet))
    if not chosen:
        raise AuditError(
            "LibraGradAudit has nothing to explain with; `rules` needs at least one rule set."
        )
    one_of(("auto", *TASKS), source.task, "task")
    one_of(tuple(PERTURBATIONS), deletion.perturbation, "perturbation")
    if isinstance(target, str):
        one_of(("predicted", "label"), target, "target")
    asked = _listed(DEFAULT_METRICS if metrics is None else metrics, (str, Metric))
    try:
        reward_function(reward)
        levels = check_levels(deletion.levels)
        return AuditConfig(
            source=source,
            request=request,
            rules=tuple(rule_set(r) for r in chosen),
            method=attribution_method(method),
            reward=reward if isinstance(reward, str) else reward_function(reward),
            target=target,
            metrics=_metric_names(asked, levels),
            asked=metrics is not None,
            own_metrics=tuple(m for m in asked if isinstance(m, Metric)),
            levels=levels,
            perturbation=deletion.perturbation,
            batch_size=_batch_size(batch_size),
            unknown=unknown,
            backbone=backbone,
            blocks=None if blocks is None else tuple(_listed(blocks, (str,))),
            in_float32=one_of(("float32", "module"), precision, "precision") == "float32",
            completeness_on=one_of(("some", "all"), completeness_on, "completeness_on"),
            deletes_in_bfloat16=_in_bfloat16(deletion),
        )
    except ValueError as error:
        raise AuditError(f"LibraGradAudit: {error}") from error


def _in_bfloat16(deletion: Deletion) -> bool:
    return one_of(_PRECISIONS, deletion.precision, "deletion.precision") == "bfloat16"


def _batch_size(value: int | str) -> int:
    if isinstance(value, str):
        one_of(("auto",), value, "batch_size")
        return 0
    return at_least(1, value, "batch_size")


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return which settings differ, as ``name (before -> now)``."""
    return [
        f"{name} ({json.dumps(before.get(name))} -> {json.dumps(value)})"
        for name, value in now.items()
        if before.get(name) != value
    ]


def probe_request(
    probe: str | Sequence[int], max_samples: int, dataloader_idx: int
) -> ProbeRequest:
    """Return which images make up the probe set.

    Raises:
        AuditError: If `probe` is neither a known name nor a list of different indices.
    """
    if isinstance(probe, str):
        chosen: str | tuple[int, ...] = one_of(("first", "stratified"), probe, "probe")
    else:
        chosen = tuple(probe)
        if not chosen or min(chosen) < 0 or len(set(chosen)) < len(chosen):
            raise AuditError(
                "LibraGradAudit needs `probe` to be 'first', 'stratified' or a list of different "
                f"places in the validation loader, from 0, but got {list(chosen)}."
            )
    return ProbeRequest(
        chosen,
        at_least(1, max_samples, "max_samples"),
        at_least(0, dataloader_idx, "dataloader_idx"),
    )


def _listed(given: Any, kinds: tuple[type, ...]) -> list[Any]:
    """Return one thing, or several, as a list."""
    return [given] if isinstance(given, kinds) else list(given)


def _metric_names(asked: Sequence[str | Metric], levels: Sequence[float]) -> tuple[str, ...]:
    names = tuple(name for name in asked if not isinstance(name, Metric))
    strange = sorted(set(names) - set(METRICS))
    if strange:
        raise AuditError(
            f"LibraGradAudit does not know the metrics {strange}; `metrics` takes {list(METRICS)}, "
            "and metrics of torchmetrics."
        )
    for name in names:
        try:
            METRICS[name].create(levels, "multiclass")
        except ValueError as error:
            raise AuditError(
                f"LibraGradAudit cannot measure {name!r} with `levels` {list(levels)}: {error}"
            ) from error
    return names


def _named(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | torch.dtype):
        return value
    return getattr(value, "__qualname__", repr(value))
