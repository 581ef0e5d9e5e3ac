"""Lightning callbacks: the one line to add to a Trainer."""

from libragrad_lightning.callbacks.audit import LibraGradAudit
from libragrad_lightning.callbacks.samples import Samples, unpack_batch

__all__ = ["LibraGradAudit", "Samples", "unpack_batch"]
