"""The history of audits as a table for loggers and files: every audit and every value."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl

from libragrad_lightning.audit import AuditRecord
from libragrad_lightning.reporting.sinks import logger_step, trainer_sinks
from libragrad_lightning.tables import TableRows


def history_table(history: Sequence[AuditRecord]) -> TableRows:
    """Return a table with one row per audit and one column per value.

    Args:
        history: The audits; a value that one of them lacks is an empty cell.
    """
    keys = list(dict.fromkeys(key for record in history for key in record.values))
    rows = (
        (
            *(record.epoch, record.step, record.weights, record.perturbation),
            *(record.samples, record.seconds),
            *(record.values.get(key) for key in keys),
        )
        for record in history
    )
    columns = ("epoch", "step", "weights", "deletion", "samples", "seconds")
    return TableRows((*columns, *keys), tuple(rows))


def write_history(trainer: pl.Trainer, name: str, history: Sequence[AuditRecord]) -> None:
    """Write the history to all sinks of a Trainer as ``<name>/history``, if there is one."""
    for sink in trainer_sinks(trainer) if history else ():
        sink.write_table(f"{name}/history", history_table(history), logger_step(trainer))
