"""Learns from validation steps what is explained, and collects the probe set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch

from libragrad_lightning.attribution import Task
from libragrad_lightning.attribution.tasks import TASKS
from libragrad_lightning.audit import (
    AuditConfig,
    AuditError,
    Learned,
    ProbeGroup,
    ProbeSet,
    Samples,
    Selection,
    Shard,
    images_added_up,
    in_float32,
)
from libragrad_lightning.models import explanation_state, gathered
from libragrad_lightning.monitoring.notices import Notices
from libragrad_lightning.monitoring.steps import StepWatcher, silent


class ProbeCollector:
    """Looks at validation steps until it has what an audit needs.

    Args:
        config: What is explained.
        notices: Where to say what the user should know.
    """

    def __init__(self, config: AuditConfig, notices: Notices) -> None:
        self._config, self._notices = config, notices
        self._watcher: StepWatcher | None = None
        self._learned: Learned | None = None
        self._probe: ProbeSet | None = None
        self._fresh: Samples | None = None

    @property
    def learned(self) -> Learned:
        """What is explained.

        Raises:
            AuditError: If no step has shown it.
        """
        if self._learned is None:
            raise AuditError(
                "LibraGradAudit has not seen a validation step to learn from; `dataloader_idx` "
                "says which loader it looks at."
            )
        return self._learned

    @property
    def task(self) -> Task:
        """What the scores mean.

        Raises:
            AuditError: If no step has shown it.
        """
        return self.learned.task

    @property
    def is_fixed(self) -> bool:
        """Whether the probe set is there."""
        return self._probe is not None and self._probe.is_fixed

    @property
    def is_collecting(self) -> bool:
        """Whether the probe set is wanted and not there."""
        return self._probe is not None and not self._probe.is_fixed

    @property
    def is_watching(self) -> bool:
        """Whether a step is watched, or has been."""
        return self._watcher is not None

    @property
    def is_complete(self) -> bool:
        """Whether no image that may still come is wanted; the same in every process."""
        return self._probe is not None and self._probe.is_complete

    def reset(self) -> None:
        """Begin with another loader or module."""
        self.leave()
        self._learned = self._probe = self._fresh = None

    def forget_probe(self) -> None:
        """Collect another probe set."""
        self._probe = None

    def expect(self, selection: Selection, shard: Shard) -> None:
        """Collect the images of a selection from now on, unless there is a probe set."""
        if not self.is_fixed:
            self._probe = ProbeSet(selection, shard)

    def watch(self, module: pl.LightningModule, step: str, batch: Any, is_first: bool) -> None:
        """Watch the next step, if there is something to learn from it."""
        self.leave()
        if is_first or self.is_collecting:
            source = self._config.source
            self._watcher = StepWatcher(module, step, batch, source.path)

    def leave(self) -> None:
        """Do not watch."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.leave()

    def learn(self, module: pl.LightningModule, is_first: bool, checks: bool = True) -> None:
        """Learn from the step that was watched.

        Args:
            module: The module.
            is_first: Whether there is nothing that was learned in this validation.
            checks: Whether to check that what was learned holds for a later batch too.

        Raises:
            AuditError: If what is to be explained cannot be told.
        """
        watcher, self._watcher, self._fresh = self._watcher, None, None
        if watcher is None:
            return
        watcher.leave()
        source = self._config.source
        # Lightning may validate in inference mode, whose tensors could not be differentiated.
        with torch.inference_mode(False):
            if watcher.may_compile:
                with audited_state(module, in_full_precision=False):
                    seen = watcher.seen_again()
            else:
                seen = watcher.seen()
            found = source.found(seen)
            self._fresh = source.samples(seen, found)
            if self._learned is None or is_first:
                with audited_state(module, self._config.in_float32):
                    self._learned = source.learned(seen, found, self._fresh)
                for note in self._learned.notes:
                    self._notices.info(note)
                for warning in self._learned.warnings:
                    self._notices.warn(warning)
            elif checks:
                with audited_state(module, self._config.in_float32):
                    source.check(seen, found, self._learned)

    def agree_on_task(self) -> None:
        """Let all processes take their scores for the same. Every process has to call it.

        The labels of one of them may all be 0 or 1 by chance.
        """
        tasks = [t for t in gathered(None if self._learned is None else self._learned.task) if t]
        if self._learned is not None and tasks:
            self._learned = replace(self._learned, task=max(tasks, key=TASKS.index))

    def keep(self) -> None:
        """Keep the images of the batch that are wanted.

        Raises:
            AuditError: If its labels do not fit the scores.
        """
        fresh, self._fresh = self._fresh, None
        if self._probe is not None and fresh is not None and not self._probe.is_fixed:
            with torch.inference_mode(False):
                self._probe.add(self.learned.labeled(fresh))

    def fix(self) -> None:
        """Take what is there as the probe set from now on."""
        if self._probe is not None:
            self._probe.fix()

    def groups(self, limit: int | None = None) -> list[ProbeGroup]:
        """Return the images of this process by size, at most so many over all processes."""
        with torch.inference_mode(False):
            return [] if self._probe is None else self._probe.groups(limit)

    @property
    def comes_in_order(self) -> bool:
        """Whether images can be explained as they come, without the others."""
        call = None if self._learned is None else self._learned.call
        alone = call is None or not call.others
        return self._probe is not None and self._probe.comes_in_order and alone

    def has(self, count: int) -> bool:
        """Return whether there are so many images of one size."""
        return self._probe is not None and self._probe.has(count)

    def taken(self, count: int) -> list[ProbeGroup]:
        """Return the images of this process, a multiple of so many, and keep them no longer."""
        with torch.inference_mode(False):
            return [] if self._probe is None else self._probe.taken(count)

    @property
    def size(self) -> int:
        """How many images of the probe set this process has."""
        return 0 if self._probe is None else len(self._probe.ids)

    @property
    def added_up(self) -> int:
        """For how many first images of this process attributions are added up for the logit."""
        total = images_added_up(self._config)
        return total if self._probe is None else self._probe.own_part(total)


@contextmanager
def audited_state(module: pl.LightningModule, in_full_precision: bool) -> Iterator[None]:
    """Let a module be explained, and leave no trace of it.

    Args:
        module: The module.
        in_full_precision: Whether half-precision weights are replaced by float32 copies.
    """
    # Copies made in inference mode could not be differentiated.
    with (
        torch.inference_mode(False),
        in_float32(module, in_full_precision),
        silent(module),
        explanation_state(module),
    ):
        yield
