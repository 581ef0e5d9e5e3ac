"""Images that are explained at once, and what is found of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from libragrad_lightning.attribution import Explanation, SumsOf
from libragrad_lightning.audit.keys import Key
from libragrad_lightning.audit.metric_inputs import MetricInputs
from libragrad_lightning.audit.rows import ExplainedRows, Truth
from libragrad_lightning.audit.samples import Samples
from libragrad_lightning.models import TokenModel


@dataclass(frozen=True)
class ExplainedTarget:
    """A class of an image, or a text that it is compared with, as it is explained.

    Attributes:
        number: The class, label or output; of a text, the place in the probe set of the image that
            it belongs to.
        text: The text, empty if it is not known; None for a class.
        score: What there is to say of it: the probability of a class or label, else the score.
        maps: Its signed maps `[h, w]`, by the names of rule sets.
        mask: Where it is, bool `[H, W]`, if masks tell classes apart; else None.
    """

    number: int
    text: str | None
    score: float
    maps: Mapping[str, Tensor]
    mask: Tensor | None = None


class ImageTargets(Protocol):
    """Explains targets of images that were explained at once, when it is asked."""

    def of(self, row: int) -> Iterator[ExplainedTarget]:
        """Yield the targets of an image, its own first.

        Args:
            row: The place of the image among those that were explained at once.

        Raises:
            LibraGradError: If one of them cannot be explained.
        """
        ...


@dataclass(frozen=True)
class ExplainedChunk:
    """A few images that were explained at once.

    Attributes:
        numbers: Their places in the probe set.
        keys: What they are remembered by.
        samples: The images, on the device.
        labels: All that the labels say of them, in the form of the task, on the CPU; or None.
        outputs: What the model says of them, `[B, C]`; quantities as it returns them.
        inputs: For every rule set what its metrics are fed.
        targets: Explains what else there is in them.
        values: What each image alone gives to metrics, `[B]`, by ``metric/rules``; NaN for images
            that are not scored.
    """

    numbers: Sequence[int]
    keys: Sequence[Key]
    samples: Samples
    labels: Tensor | None
    outputs: Tensor
    inputs: Sequence[MetricInputs]
    targets: ImageTargets
    values: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass
class Part:
    """Some images of one size, to be explained at once.

    Attributes:
        model: The model, with what the images have beside them.
        rows: All images of the size.
        start: The place of the first of them there.
        stop: The place behind the last one.
        samples: The images, on the device.
        other_images: Images that the audit before did not have in their places.
        sums: What their attributions are added up for.
        prints: Fingerprints of all images of the size.
        inputs: For every rule set what metrics are fed of them; None until it is there.
    """

    model: TokenModel
    rows: ExplainedRows
    start: int
    stop: int
    samples: Samples
    other_images: Collection[Key]
    sums: tuple[SumsOf, ...]
    prints: Mapping[Key, int]
    inputs: list[MetricInputs] | None = None

    @property
    def keys(self) -> tuple[Key, ...]:
        """What they are remembered by."""
        return self.rows.keys[self.start : self.stop]

    @property
    def truth(self) -> Truth:
        """What to compare their scores with."""
        return self.rows.truth(self.start, self.stop)

    @property
    def labels(self) -> Tensor | None:
        """All that the labels say of them, or None."""
        found = self.rows.labels
        return None if found is None else found[self.start : self.stop]

    @property
    def explanations(self) -> list[Explanation]:
        """How they were explained, for every rule set."""
        return [found.explanation for found in self.inputs or []]

    def explained(
        self, outputs: Tensor, targets: ImageTargets, values: Mapping[str, Tensor]
    ) -> ExplainedChunk:
        """Return what others may see of them.

        Args:
            outputs: What the model says of them, `[B, C]`.
            targets: Explains what else there is in them.
            values: What each image alone gives to metrics.
        """
        numbers, inputs = self.rows.numbers[self.start : self.stop], self.inputs or []
        return ExplainedChunk(
            *(numbers, self.keys, self.samples, self.labels),
            *(outputs, inputs, targets, values),
        )
