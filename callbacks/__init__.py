"""Lightning callbacks: the one line to add to a Trainer."""

from libragrad_lightning.callbacks.audit import LibraGradAudit
from libragrad_lightning.callbacks.samples import Samples, unpack_batch
from libragrad_lightning.callbacks.shortcut_alarm import ShortcutAlarm

__all__ = ["LibraGradAudit", "Samples", "ShortcutAlarm", "unpack_batch"]
