"""What an audit found: in one process, and over all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from libragrad_lightning.audit.image_scores import ImageScores, drawn_scores, joined_scores
from libragrad_lightning.audit.keys import Key


@dataclass(frozen=True)
class Failure:
    """Why a process could not do its part.

    Attributes:
        rank: The process.
        message: What went wrong.
        out_of_memory: Whether memory ran out.
    """

    rank: int
    message: str
    out_of_memory: bool = False


@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Attributes:
        fingerprints: A number for each image that changes with its pixels, by key.
        maps: Attribution maps `[h, w]`, float32 on the CPU, by rule set and key.
        uninformative: How many maps are the same everywhere or not finite, by rule set.
        nonfinite: How many images have scores that are not finite.
        perturbation: What deletion did to patches; empty if nothing was deleted.
        seconds: How long it took, in the slowest process.
        peak_memory_gib: The most CUDA memory in use meanwhile, in GiB; None on other devices.
        failures: Why processes could not do their part.
        scores: What metrics give images by themselves.
        forgotten_images: How many images are not among the fingerprints.
        forgotten_maps: How many keys those have.
        deletion_rounding: How much a lower precision moved logits under deletion, relative to their
            standard deviation; None unless there is one.
    """

    fingerprints: Mapping[Key, int] = field(default_factory=dict)
    maps: Mapping[str, Mapping[Key, Tensor]] = field(default_factory=dict)
    uninformative: Mapping[str, int] = field(default_factory=dict)
    nonfinite: int = 0
    perturbation: str = ""
    seconds: float = 0.0
    peak_memory_gib: float | None = None
    failures: tuple[Failure, ...] = ()
    scores: ImageScores = field(default_factory=ImageScores, compare=False)
    forgotten_images: int = 0
    forgotten_maps: int = 0
    deletion_rounding: float | None = None

    @property
    def samples(self) -> int:
        """How many images have finite scores."""
        remembered = len({sample_id for sample_id, _ in self.fingerprints})
        return remembered + self.forgotten_images - self.nonfinite

    @property
    def explained(self) -> int:
        """How many maps there are under each rule set."""
        return len(self.fingerprints) + self.forgotten_maps

    def changed(self, fingerprints: Mapping[Key, int]) -> set[Key]:
        """Return the keys under which other images are found now than in this audit."""
        return {k for k, f in fingerprints.items() if self.fingerprints.get(k, f) != f}

    def previous_maps(
        self, rules: str, keys: Sequence[Key], other_images: Collection[Key], size: tuple[int, int]
    ) -> Tensor | None:
        """Return the maps of images under a rule set, `[N, h, w]`.

        Args:
            rules: The rule set.
            keys: The images.
            other_images: Those of them that are other images now.
            size: The size of their maps.

        Returns:
            NaN for images that this audit did not have; None if it had none of them.
        """
        known = self.maps.get(rules, {})
        found = [None if k in other_images else known.get(k) for k in keys]
        fitting = [m if m is not None and m.shape == size else None for m in found]
        if all(m is None for m in fitting):
            return None
        missing = torch.full(size, float("nan"))
        return torch.stack([missing if m is None else m for m in fitting])

    def state_dict(self) -> dict[str, Any]:
        """Return what later audits are compared with, as a checkpoint can hold it."""
        return {
            "fingerprints": dict(self.fingerprints),
            "maps": {rules: dict(maps) for rules, maps in self.maps.items()},
        }


def merged(results: Sequence[AuditResult]) -> AuditResult:
    """Return the results of all processes as one."""
    rules = dict.fromkeys(name for result in results for name in result.maps)
    peaks = [r.peak_memory_gib for r in results if r.peak_memory_gib is not None]
    return AuditResult(
        {key: f for result in results for key, f in result.fingerprints.items()},
        {name: {k: m for r in results for k, m in r.maps.get(name, {}).items()} for name in rules},
        {name: sum(r.uninformative.get(name, 0) for r in results) for name in rules},
        sum(result.nonfinite for result in results),
        next((r.perturbation for r in results if r.perturbation), ""),
        max(result.seconds for result in results),
        max(peaks, default=None),
        tuple(failure for result in results for failure in result.failures),
        drawn_scores(joined_scores([result.scores for result in results])),
        sum(result.forgotten_images for result in results),
        sum(result.forgotten_maps for result in results),
        max(
            (r.deletion_rounding for r in results if r.deletion_rounding is not None), default=None
        ),
    )
