"""Audits inside of a Trainer's run: its steps are watched, its processes agree."""

from libragrad_lightning.monitoring.divergence import (
    AuditedAccuracy,
    Divergence,
    find_divergence,
)
from libragrad_lightning.monitoring.failures import FailureGuard, OnError
from libragrad_lightning.monitoring.hooks import AuditHooks
from libragrad_lightning.monitoring.keys import check_key
from libragrad_lightning.monitoring.overhead import Overhead
from libragrad_lightning.monitoring.schedule import Schedule
from libragrad_lightning.monitoring.session import AuditSession

__all__ = [
    "AuditHooks",
    "AuditSession",
    "AuditedAccuracy",
    "Divergence",
    "FailureGuard",
    "OnError",
    "Overhead",
    "Schedule",
    "check_key",
    "find_divergence",
]
