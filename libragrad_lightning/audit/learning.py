"""Learns from one validation step what is to be explained: images, scores, labels and the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from libragrad_lightning.attribution import Task
from libragrad_lightning.audit.batches import UnpackBatch, read_batch
from libragrad_lightning.audit.errors import AuditError
from libragrad_lightning.audit.precision import floating_dtype
from libragrad_lightning.audit.replay import ModelCall, PairReplay
from libragrad_lightning.audit.samples import Samples, checked_samples
from libragrad_lightning.audit.scored_call import ScoredCall, scored_call
from libragrad_lightning.audit.tasks import canonical_labels, told_task
from libragrad_lightning.audit.trees import at
from libragrad_lightning.audit.verification import check_batch, direct, replayed
from libragrad_lightning.audit.watch import WatchedStep
from libragrad_lightning.models import submodule

_SQUASHES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "softplus": F.softplus,
    "exp": torch.exp,
}
"""What makes quantities of scores at the end of a model."""

_PAIRED = (
    "LibraGradAudit explains the score of each image with its own text, since the step compares "
    "all images of a batch with all of its texts."
)

ForwardFunction: TypeAlias = Callable[[nn.Module, Tensor], Any]
"""The audited module and images `[B, C, H, W]` to scores `[B, C]`, or to anything that holds them.
"""


@dataclass(frozen=True)
class SeenStep:
    """A validation step that was watched.

    Attributes:
        root: The module whose step it is.
        batch: The batch.
        watched: What was seen of it; None if it was not watched.
        owners: The modules that own parameters, and their names, by the ids of the parameters.
    """

    root: nn.Module
    batch: Any
    watched: WatchedStep | None
    owners: Mapping[int, tuple[nn.Module, str]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Learned:
    """What is explained.

    Attributes:
        call: The forward pass.
        task: What its scores mean.
        outputs: How many scores an image has.
        notes: What the user should know of it, a sentence each.
        warnings: What the user may want to change, a sentence each.
        random: Whether scores of the same images differ from one time to the next.
    """

    call: ModelCall
    task: Task
    outputs: int
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    random: bool = False

    def outputs_of(self, logits: Tensor) -> Tensor:
        """Return quantities as the model returns them, squashed; other scores are as they are."""
        squash = _SQUASHES.get(self.call.squashed)
        return logits if squash is None or self.task != "regression" else squash(logits)

    @property
    def is_paired(self) -> bool:
        """Whether an image has one score, that of what belongs to it, such as its text."""
        return isinstance(self.call.forward, PairReplay)

    def labeled(self, samples: Samples) -> Samples:
        """Return samples with labels in the form of the task.

        Raises:
            AuditError: If labels or masks are not those of the scores.
        """
        self._check_masks(samples.masks)
        if self.is_paired:
            return replace(samples, labels=None)
        if samples.labels is None:
            return samples
        return replace(samples, labels=canonical_labels(samples.labels, self.task, self.outputs))

    def _check_masks(self, masks: Tensor | None) -> None:
        classes = 2 if self.task == "binary" else self.outputs
        if masks is not None and masks.dim() == 4 and masks.shape[1] != classes:
            raise AuditError(
                f"LibraGradAudit found masks of {masks.shape[1]} classes for {classes} classes or "
                "outputs that the model has scores for; pass `unpack` to return masks [B, H, W], "
                "or one of each [B, C, H, W]."
            )


@dataclass(frozen=True)
class Source:
    """How samples and scores are taken from steps.

    Attributes:
        forward: The path of the submodule whose call is explained, a function, or None.
        unpack: A user's function from batches to samples, or None.
        task: The task, or ``"auto"``.
    """

    forward: str | ForwardFunction | None = None
    unpack: UnpackBatch | None = None
    task: Task | str = "auto"

    @property
    def path(self) -> str | None:
        """The path of the only submodule whose calls matter, or None."""
        return self.forward if isinstance(self.forward, str) else None

    def found(self, seen: SeenStep) -> ScoredCall | None:
        """Return the call of a step that gave its scores; None if there is none to be found.

        Raises:
            AuditError: If it cannot be told.
        """
        if seen.watched is None or callable(self.forward):
            return None
        return scored_call(seen.root, seen.watched, self.path)

    def samples(self, seen: SeenStep, found: ScoredCall | None) -> Samples:
        """Return the samples of a batch: the images that the model received, labels and masks.

        Labels that a loss was given come before those of the batch.

        Raises:
            AuditError: If they cannot be found, or do not fit together.
        """
        received = None if found is None else found.images
        if self.unpack is not None:
            samples = _unpacked(self.unpack, seen.batch, received)
        else:
            samples = read_batch(seen.batch, received)
            labels = None if found is None else found.labels
            if labels is not None and labels.dim() and len(labels) == len(samples):
                labels = _true_labels(labels, samples.labels)
                signs = found is not None and "soft_margin_loss" in found.functions
                samples = replace(samples, labels=labels > 0 if signs else labels)
        return checked_samples(replace(samples, others=_others(found, samples)))

    def learned(self, seen: SeenStep, found: ScoredCall | None, samples: Samples) -> Learned:
        """Return what is explained. Call it in the state in which models are explained.

        Raises:
            AuditError: If it does not give the scores of the step.
        """
        notes: tuple[str, ...] = ()
        warnings: tuple[str, ...] = ()
        random = False
        first = samples[slice(0, 1)]
        if found is None:
            call = direct(*self._function(seen.root), _floating(first.pixels, seen.root))
            functions: tuple[str, ...] = ()
        else:
            again = replayed(seen.root, found, seen.owners)
            call, functions = again.call, found.functions
            random = again.random
            warnings = _warnings_of_replay(random, found, samples)
        if call.squashed:
            notes = (
                f"LibraGradAudit looks at the scores before the final {call.squashed}, which has "
                "no gradient of its own under LibraGrad.",
            )
        with torch.no_grad():
            scores = call.beside(first.others)(_floating(first.pixels, seen.root))
        outputs = scores.shape[1]
        task = self.task
        if isinstance(call.forward, PairReplay):
            notes = (*notes, _PAIRED)
            samples = replace(samples, labels=None)
            task = "regression" if task == "auto" else task
        if task == "auto":
            task = told_task(functions, samples.labels, outputs)
        notes = (_seen_in_words(seen, found, samples, task, outputs), *notes)
        return Learned(call, task, outputs, notes, warnings, random)  # type: ignore[arg-type]

    def check(self, seen: SeenStep, found: ScoredCall | None, learned: Learned) -> None:
        """Check a batch after the first. Call it in the state in which models are explained.

        Raises:
            AuditError: If something that changes from batch to batch decides about its scores.
        """
        if found is not None and not learned.random:
            with torch.no_grad():
                check_batch(learned.call, seen.root, found)

    def _function(self, root: nn.Module) -> tuple[Callable[[Tensor], Any], str]:
        if callable(self.forward):
            return partial(self.forward, root), "`forward`"
        if self.forward is None:
            return root, f"The `forward` of {type(root).__name__}"
        return submodule(root, self.forward, "forward"), f"`{self.forward}`"


def _seen_in_words(
    seen: SeenStep, found: ScoredCall | None, samples: Samples, task: str, outputs: int
) -> str:
    """Return what is explained, for the log."""
    what = f"`{type(seen.root).__name__}`" if found is None else found.name
    goes_on = ", with what the step makes of it" if found is not None and found.operations else ""
    there = [n for n in ("labels", "masks", "ignore") if getattr(samples, n) is not None]
    return (
        f"LibraGradAudit looks at {what}{goes_on}: images {tuple(samples.pixels.shape[1:])} to "
        f"{outputs} scores ({task}), {' and '.join(there) or 'without labels'}."
    )


def _true_labels(given: Tensor, held: Tensor | None) -> Tensor:
    """Return the labels that a loss was given, or the classes in the batch that it made them of."""
    if held is not None and held.dim() == 1 and given.dim() == 2 and given.shape[1] > 1:
        whole = not held.is_floating_point() and held.dtype != torch.bool
        one_each = bool(((given > 0.5).sum(1) <= 1).all())
        if whole and one_each and bool((given.argmax(1) == held.to(given.device)).all()):
            return held
    return given


def _floating(images: Tensor, module: nn.Module) -> Tensor:
    device = next((p.device for p in module.parameters()), images.device)
    return images.detach().clone().to(device, floating_dtype(module))


def _unpacked(unpack: UnpackBatch, batch: Any, received: Tensor | None) -> Samples:
    samples = unpack(batch)
    if not isinstance(samples, Samples):
        raise AuditError(
            f"`unpack` must return `Samples(images, labels, masks)` but returned "
            f"{type(samples).__name__}."
        )
    return samples if samples.images is not None else replace(samples, images=received)


def _others(found: ScoredCall | None, samples: Samples) -> tuple[Tensor, ...]:
    """Return what the model received beside the images, a row for each."""
    if found is None or len(samples) != len(found.images):
        return ()
    return tuple(at(found.call.arguments, way).detach() for way in found.row_ways)


def _warnings_of_replay(random: bool, found: ScoredCall, samples: Samples) -> tuple[str, ...]:
    notes = []
    if random:
        notes.append(
            f"LibraGradAudit explains {found.name} as it is at the time of the audit, since it "
            "gives the same images other scores each time; pass `forward`, a function `(module, "
            "images) -> scores`, to take the chance out of it."
        )
    images = samples.pixels
    if images.shape == found.images.shape and not torch.equal(images, found.images):
        notes.append(
            f"LibraGradAudit explains the images that `unpack` returns, which are not those that "
            f"the validation step shows to {found.name}; return `Samples(None, labels, masks)` to "
            "explain these."
        )
    return tuple(notes)
