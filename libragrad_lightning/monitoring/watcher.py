"""Looks on while an audit runs: draws panels, checks rules, shows progress."""

from __future__ import annotations

from collections.abc import Callable

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from libragrad_lightning.audit import AuditConfig, ExplainedChunk
from libragrad_lightning.diagnosis import CoverageReport
from libragrad_lightning.models import TokenModel
from libragrad_lightning.monitoring.coverage import checked_coverage
from libragrad_lightning.monitoring.progress import AuditProgress
from libragrad_lightning.reporting import PanelDrawer


class RunWatcher:
    """What is done beside explaining and measuring.

    Args:
        module: The module that is audited.
        config: What is explained.
        drawer: Draws panels.
        progress: Shows how many images are done.
        on_coverage: Called with the rules that the operations of the model get; None if that is
            known.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        config: AuditConfig,
        drawer: PanelDrawer,
        progress: AuditProgress,
        on_coverage: Callable[[list[CoverageReport]], None] | None,
    ) -> None:
        self._module, self._config = module, config
        self._drawer, self._progress, self._on_coverage = drawer, progress, on_coverage

    def model_read(self, model: TokenModel, images: Tensor) -> None:
        """Report which operations have a rule, the first time."""
        if self._on_coverage is not None:
            report, self._on_coverage = self._on_coverage, None
            report(checked_coverage(self._module, model, images, self._config))

    def chunk_explained(self, chunk: ExplainedChunk) -> None:
        """Draw the first images of the probe set."""
        self._drawer.draw(chunk)
        self._progress.update(len(chunk.numbers))

    def memory_ran_out(self, size: int) -> None:
        """Say with how many images the audit goes on."""
        rank_zero_warn(
            f"LibraGradAudit ran out of memory with {size} images at once and goes on with "
            f"{size // 2}; pass `batch_size={size // 2}` to begin there."
        )
