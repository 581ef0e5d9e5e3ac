"""Writes which rule every operation of a model gets."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl

from libragrad_lightning.diagnosis import CoverageReport
from libragrad_lightning.reporting.sinks import logger_step, trainer_sinks


def write_coverage(trainer: pl.Trainer, name: str, reports: Sequence[CoverageReport]) -> None:
    """Write coverage reports as texts, ``<name>/coverage/<rules>``."""
    for sink in trainer_sinks(trainer):
        for report in reports:
            tag = f"{name}/coverage/{report.rules}"
            sink.write_text(tag, report.markdown(), logger_step(trainer))
