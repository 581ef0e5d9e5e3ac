"""Runs audits and reports them; `LibraGradAudit` says when."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import lightning.pytorch as pl
import torch
from libragrad_lightning.callbacks.coverage import checked_coverage, log_coverage
from libragrad_lightning.callbacks.drift import LastMaps, last_maps
from libragrad_lightning.callbacks.explaining import Findings, explain_probe
from libragrad_lightning.callbacks.guard import (
    OnError,
    attempt,
    attempt_in_chunks,
    is_out_of_memory,
    settle,
)
from libragrad_lightning.callbacks.module_reading import floating_dtype, read_module
from libragrad_lightning.callbacks.pictures import PictureSettings, log_panels, shown_pictures
from libragrad_lightning.callbacks.precision import in_float32
from libragrad_lightning.callbacks.probe import Probe, fingerprints
from libragrad_lightning.callbacks.processes import Share, gathered
from libragrad_lightning.callbacks.samples import Samples, UnpackBatch, unpacked
from libragrad_lightning.callbacks.schedule import Overhead
from libragrad_lightning.callbacks.settings import AuditSettings
from libragrad_lightning.callbacks.summary import AuditRecord
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.checkpoint import CheckpointError
from tqdm import tqdm

from libragrad_lightning.models import TokenModel, explanation_state


@dataclass
class Auditor:
    """Runs audits of a probe set and keeps their history.

    Attributes:
        settings: What is explained and measured.
        pictures: How it is drawn.
        unpack: Takes samples out of a batch.
        overhead: Limits how many images are explained.
        on_error: What to do about failures.
        name: First part of the names of what is written.
        history: The audits so far.
        probe: The probe set, as soon as there is one.
        last: The maps of the last audit.
    """

    settings: AuditSettings
    pictures: PictureSettings
    unpack: UnpackBatch
    overhead: Overhead
    on_error: OnError
    name: str
    history: list[AuditRecord] = field(default_factory=list)
    probe: Probe | None = None
    last: LastMaps = field(default_factory=LastMaps)
    _covered: bool = False
    _chunk: int = 0
    _share: Share | None = None
    _findings: Findings | None = None
    _error: Exception | None = None

    def reset(self, forget: bool) -> None:
        """Begin with another loader or module; forget the history too if that is wanted."""
        self.probe, self.last, self._covered = None, LastMaps(), False
        self._chunk = self.settings.batch_size
        self.discard()
        if forget:
            self.history = []
            self.overhead.max_samples = None

    def discard(self) -> None:
        """Drop what has been found and not been reported."""
        self._share = self._findings = self._error = None

    @property
    def has_findings(self) -> bool:
        """Whether there is something to report."""
        return self._share is not None

    def collect(self, batch: Any, probe: Probe) -> None:
        """Let the probe set look at a batch."""
        # Lightning may validate in inference mode, whose tensors could not be differentiated.
        with torch.inference_mode(False):
            found = attempt(lambda: probe.add(unpacked(batch, self.unpack)))
        settle(found.error, self.on_error)

    def look(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any) -> None:
        """Explain one image of a batch, so that what cannot work shows before training."""

        def work() -> None:
            samples = unpacked(batch, self.unpack)[slice(0, 1)].stored()
            with self._state(module):
                self._explain(trainer, module, samples, {}, 1, draws=False)

        with torch.inference_mode(False):
            settle(attempt(work).error, self.on_error)

    def audit(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Do this process's part of an audit."""
        # Lightning may validate in inference mode, whose tensors could not be differentiated.
        with torch.inference_mode(False):
            ids, samples = self._chosen()
        prints = [] if samples is None else fingerprints(samples.images)

        def work(size: int) -> Findings:
            with self._state(module):
                return self._explain(
                    trainer, module, samples, dict(zip(ids, prints, strict=True)), size
                )

        found, self._chunk = attempt_in_chunks(work, self._chunk)
        self._findings, self._error = found.result, found.error
        self._share = _share(ids, prints, found.result, found.error)
        if trainer.world_size == 1:
            settle(self._error, self.on_error)

    def report(
        self,
        trainer: pl.Trainer,
        name: str,
        write: Callable[[Mapping[str, float]], None],
        weights: str = "current",
    ) -> None:
        """Agree with the other processes on what was found, and write it.

        Args:
            trainer: The Trainer.
            name: First part of the log keys.
            write: Logs values under their keys.
            weights: Which weights were explained, for the history.
        """
        if self._share is None:
            return
        shares, findings, error = gathered(self._share), self._findings, self._error
        self.discard()
        failures = [share.failure() for share in shares if share.error is not None]
        if failures or findings is None:
            if trainer.world_size > 1:
                settle(error or failures[0], self.on_error)
            return
        if not any(share.ids for share in shares):
            rank_zero_warn(
                "LibraGradAudit has seen no image to explain; `dataloader_idx` and `probe` say "
                "which ones it takes."
            )
            return
        panels = findings.panels
        found = attempt(lambda: self._publish(trainer, name, findings, shares, weights, write))
        if found.error is None:
            found = attempt(lambda: log_panels(trainer, name, panels))
        settle(found.error, self.on_error)

    def keep_within_budget(self) -> None:
        """Explain fewer images from now on if audits took too much of the epoch."""
        overhead = self.overhead
        if overhead.largest_share is None or not self.history:
            return
        share, samples = max(gathered(overhead.share())), self.history[-1].samples
        if overhead.shrink(share, samples):
            rank_zero_warn(
                f"LibraGradAudit took {share:.0%} of the time of the epoch and explains "
                f"{overhead.max_samples} images in place of {samples} from now on; pass a larger "
                f"`max_overhead` than {overhead.largest_share} to keep them."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into a checkpoint: plain values and tensors."""
        return {
            "history": [asdict(record) for record in self.history],
            "last": self.last.state_dict(),
            "max_samples": self.overhead.max_samples,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.history = [AuditRecord(**record) for record in state["history"]]
        self.last = LastMaps(**state["last"])
        self.overhead.max_samples = state["max_samples"]

    def _publish(
        self,
        trainer: pl.Trainer,
        name: str,
        findings: Findings,
        shares: Sequence[Share],
        weights: str,
        write: Callable[[Mapping[str, float]], None],
    ) -> None:
        measured = findings.measurement.values()
        values = {key: value for key, value in measured.items() if not math.isnan(value)}
        record = _record(trainer, values, shares, weights)
        self.history.append(record)
        self._remember(shares)
        self.overhead.add(record.seconds)
        logged = {**values, **_costs(record, self.overhead.largest_share is not None)}
        write({f"{name}/{key}": value for key, value in logged.items()})

    def _remember(self, shares: Sequence[Share]) -> None:
        current = last_maps(shares)
        changed = self.last.changed(current.fingerprints)
        if changed:
            rank_zero_warn(
                f"LibraGradAudit found other images than before in {len(changed)} of "
                f"{len(current.fingerprints)} places of the validation loader, so that its curves "
                "do not go on; pass a loader with `shuffle=False`."
            )
        self.last = current

    def _explain(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        samples: Samples | None,
        prints: Mapping[int, int],
        size: int,
        draws: bool = True,
    ) -> Findings:
        if samples is not None:
            samples = samples.to(torch.device("cpu"), floating_dtype(module))
        return explain_probe(
            module,
            lambda images: self._read(trainer, module, images),
            samples,
            self.last.of(list(prints), self.last.changed(prints)),
            replace(self.settings, batch_size=size),
            shown_pictures(
                self.pictures if draws else replace(self.pictures, count=0), trainer, module
            ),
            lambda chunks: self._progress(trainer, chunks),
        )

    @contextmanager
    def _state(self, module: pl.LightningModule) -> Iterator[None]:
        with in_float32(module, self.settings.in_float32), explanation_state(module):
            try:
                yield
            except CheckpointError as error:
                raise MisconfigurationException(
                    "LibraGradAudit reads the graph more than once, which `torch.utils.checkpoint` "
                    "does not allow; call `checkpoint` only `if self.training`."
                ) from error

    def _read(self, trainer: pl.Trainer, module: pl.LightningModule, images: Tensor) -> TokenModel:
        """Read the model, and the first time report which of its operations have a rule."""
        model = read_module(module, images, self.settings.backbone, self.settings.blocks)
        if not self._covered:
            self._covered = True
            reports = checked_coverage(module, model, images, self.settings)
            log_coverage(trainer, self.name, reports)
        return model

    def _chosen(self) -> tuple[list[int], Samples | None]:
        """Return the ids and images of this process that the budget allows."""
        samples = None if self.probe is None else self.probe.samples
        if self.probe is None or samples is None:
            return [], None
        limit = self.overhead.max_samples
        rows = len(samples) if limit is None else self.probe.share(limit)
        return (self.probe.ids[:rows], samples[slice(0, rows)]) if rows else ([], None)

    def _progress(self, trainer: pl.Trainer, chunks: Iterable[int]) -> Iterable[int]:
        quiet = trainer.progress_bar_callback is None or not trainer.is_global_zero
        bar: Iterable[int] = tqdm(chunks, self.name, leave=False, delay=2, disable=quiet)
        return bar


def _share(
    ids: list[int], prints: list[int], findings: Findings | None, error: Exception | None
) -> Share:
    if findings is None:
        return Share(
            error=f"{type(error).__name__}: {error}", out_of_memory=is_out_of_memory(error)
        )
    return Share(ids, prints, findings.maps, findings.seconds, findings.peak_memory_gib)


def _record(
    trainer: pl.Trainer, values: Mapping[str, float], shares: Sequence[Share], weights: str
) -> AuditRecord:
    peaks = [share.peak_memory_gib for share in shares if share.peak_memory_gib is not None]
    return AuditRecord(
        trainer.current_epoch,
        trainer.global_step,
        values,
        max(share.seconds for share in shares),
        sum(len(share.ids) for share in shares),
        weights,
        max(peaks, default=None),
    )


def _costs(record: AuditRecord, limited: bool) -> dict[str, float]:
    costs = {"seconds": record.seconds}
    if record.peak_memory_gib is not None:
        costs["peak_memory_gib"] = record.peak_memory_gib
    if limited:
        costs["samples"] = float(record.samples)
    return costs
