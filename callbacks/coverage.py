"""Looks at a model before it is audited: does every operation have a gradient rule?"""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl
from libragrad_lightning.callbacks.settings import AuditSettings
from libragrad_lightning.callbacks.sinks import trainer_sinks
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from libragrad_lightning.diagnosis import CoverageReport, OperationUse, coverage
from libragrad_lightning.models import TokenModel


def checked_coverage(
    module: nn.Module, tokens: TokenModel, images: Tensor, settings: AuditSettings
) -> list[CoverageReport]:
    """Return the coverage of the explained path under every rule set.

    Args:
        module: The module that is audited.
        tokens: Where its tokens are.
        images: `[B, C, H, W]`; the first one is looked at.
        settings: Their `unknown` decides what to do about operations without a role: raise, warn
            once, or only mark them in the reports.

    Raises:
        MisconfigurationException: If there are such operations and `unknown` is ``"error"``.
    """
    reports = [coverage(module, images[:1], rules=rules, tokens=tokens) for rules in settings.rules]
    unknown = {use.operation: use for report in reports for use in report.unknown}
    if unknown and settings.unknown == "error":
        raise MisconfigurationException(
            f"{_sentence(list(unknown.values()))}, or pass `unknown='warn'` or `'ignore'` to keep "
            "their ordinary gradients."
        )
    if unknown and settings.unknown == "warn":
        rank_zero_warn(f"{_sentence(list(unknown.values()))}; their ordinary gradients are kept.")
    return reports


def log_coverage(trainer: pl.Trainer, name: str, reports: Sequence[CoverageReport]) -> None:
    """Write coverage reports as texts, ``<name>/coverage/<rules>``."""
    for sink in trainer_sinks(trainer):
        for report in reports:
            tag = f"{name}/coverage/{report.rules}"
            sink.write_text(tag, report.markdown(), trainer.global_step)


def _sentence(unknown: Sequence[OperationUse]) -> str:
    listed = "; ".join(f"{use.operation} in {', '.join(use.places)}" for use in unknown)
    return (
        f"LibraGradAudit meets operations without a gradient rule ({listed}); pass `rules` whose "
        "vocabulary gives them a role (`vocabulary.extended({name: Operation(Role...)})`)"
    )
