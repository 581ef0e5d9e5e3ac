"""What else of an image can be explained, for pictures: other classes, or texts of other images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from libragrad_lightning.attribution import Explanation
from libragrad_lightning.audit.chunks import ExplainedTarget, ImageTargets, Part
from libragrad_lightning.audit.learning import Learned
from libragrad_lightning.audit.replay import ModelCall
from libragrad_lightning.audit.tasks import ranked_classes, shown_score
from libragrad_lightning.models import TokenModel

Explain: TypeAlias = Callable[[TokenModel, Tensor, int], Sequence[Explanation]]
"""Explains one class of images `[B, C, H, W]` under every rule set."""


def image_targets(explain: Explain, learned: Learned, part: Part, at_once: int) -> ImageTargets:
    """Return what explains targets of images.

    Args:
        explain: Explains a class.
        learned: What is explained.
        part: The images, which have been explained.
        at_once: How many images are explained at once.
    """
    model, samples, rows, found = part.model, part.samples, part.rows, part.explanations
    if not learned.is_paired:
        images, masks = samples.pixels, samples.masks
        return ClassTargets(explain, learned, model, images, masks, part.labels, found)
    every = rows.samples
    return TextTargets(
        explain=explain,
        call=learned.call,
        model=model,
        images=samples.pixels,
        explanations=found,
        start=part.start,
        numbers=rows.numbers,
        inputs=every.others,
        texts=every.texts,
        at_once=at_once,
    )


@dataclass(frozen=True)
class ClassTargets:
    """Explains other classes: those that labels say are true, then those with the largest scores.

    Attributes:
        explain: Explains a class.
        learned: What is explained.
        model: The model that the images were explained with.
        images: The images `[B, C, H, W]`, on the device.
        masks: Their masks, `[B, H, W]` or `[B, C, H, W]`, or None.
        labels: All labels of each image, or None.
        explanations: How their own targets were explained, for every rule set.
    """

    explain: Explain
    learned: Learned
    model: TokenModel
    images: Tensor
    masks: Tensor | None
    labels: Tensor | None
    explanations: Sequence[Explanation]

    def of(self, row: int) -> Iterator[ExplainedTarget]:
        """Yield the classes of an image, the one that was explained first."""
        first, task = self.explanations[0], self.learned.task
        outputs = self.learned.outputs_of(first.logits[row].float())
        label = None if self.labels is None else self.labels[row]
        own = int(first.target[row])
        for number in dict.fromkeys([own, *ranked_classes(outputs, label, task)]):
            if number == own:
                maps = _maps(self.explanations, row)
            else:
                image = self.images[row : row + 1]
                maps = _maps(self.explain(self.model, image, number), 0)
            score = shown_score(outputs, number, task)
            yield ExplainedTarget(number, None, score, maps, self._mask(row, number))

    def _mask(self, row: int, number: int) -> Tensor | None:
        if self.masks is None or self.masks.dim() == 3:
            return None
        return self.masks[row, number]


@dataclass(frozen=True)
class TextTargets:
    """Explains how well other images' texts fit: those with the largest scores first.

    Attributes:
        explain: Explains the only score of an image.
        call: Scores each image with its text.
        model: The model that the images were explained with.
        images: The images `[B, C, H, W]`, on the device.
        explanations: How their own texts were explained, for every rule set.
        start: The place of the first of them among all images of their size.
        numbers: The places of all these in the probe set.
        inputs: What the model receives of their texts, a row for each.
        texts: The texts, or nothing.
        at_once: How many texts are compared at once.
    """

    explain: Explain
    call: ModelCall
    model: TokenModel
    images: Tensor
    explanations: Sequence[Explanation]
    start: int
    numbers: Sequence[int]
    inputs: tuple[Tensor, ...]
    texts: Sequence[str]
    at_once: int

    def of(self, row: int) -> Iterator[ExplainedTarget]:
        """Yield the texts of an image, its own first; one that several images have stands once."""
        own, image = self.start + row, self.images[row : row + 1]
        scores = self._scores(image)
        for index in self._distinct([own, *scores.argsort(descending=True).tolist()]):
            if index == own:
                maps = _maps(self.explanations, row)
            else:
                call = self.call.beside(self._inputs(slice(index, index + 1)))
                maps = _maps(self.explain(replace(self.model, forward=call), image, 0), 0)
            text = self.texts[index] if self.texts else ""
            yield ExplainedTarget(self.numbers[index], text, float(scores[index]), maps)

    def _scores(self, image: Tensor) -> Tensor:
        """Return the scores of an image with all texts, `[T]`."""
        found = []
        with torch.no_grad():
            for start in range(0, len(self.numbers), self.at_once):
                inputs = self._inputs(slice(start, start + self.at_once))
                call = replace(self.call, others=inputs)
                found.append(call(image.expand(len(inputs[0]), -1, -1, -1))[:, 0])
        return torch.cat(found).float().cpu()

    def _inputs(self, index: slice) -> tuple[Tensor, ...]:
        return tuple(t[index].to(self.images.device) for t in self.inputs)

    def _distinct(self, indices: Sequence[int]) -> Iterator[int]:
        seen: list[int] = []
        for index in indices:
            inputs = self.inputs
            if not any(all(torch.equal(t[index], t[i]) for t in inputs) for i in seen):
                seen.append(index)
                yield index


def _maps(explanations: Sequence[Explanation], row: int) -> dict[str, Tensor]:
    return {e.rules.name: e.attribution[row].float() for e in explanations}
