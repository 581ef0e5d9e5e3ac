"""What keeps a model or its data from being audited."""

from __future__ import annotations

from libragrad_lightning.backward import LibraGradError


class AuditError(LibraGradError):
    """A validation step, a batch or an argument that cannot be audited; one sentence says why."""
