"""Lightning callbacks: the one line to add to a Trainer."""

from libragrad_lightning.audit import Deletion, Samples, unpack_batch
from libragrad_lightning.monitoring import Schedule
from libragrad_lightning.reporting import Pictures

from .libragrad_audit import LibraGradAudit
from .shortcut_alarm import ShortcutAlarm

__all__ = [
    "Deletion",
    "LibraGradAudit",
    "Pictures",
    "Samples",
    "Schedule",
    "ShortcutAlarm",
    "unpack_batch",
]
