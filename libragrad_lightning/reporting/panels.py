"""Draws one panel per probe image: the image, its map under every rule set, and its mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from libragrad_lightning.audit import AuditError, ExplainedChunk, Key, at_least
from libragrad_lightning.heatmaps import PanelTarget, StripMoment, share_panel, to_display_range
from libragrad_lightning.reporting.captions import (
    caption,
    explained,
    label_tag,
    map_note,
    remarks,
    title,
)
from libragrad_lightning.reporting.extremes import Extremes


@dataclass(frozen=True)
class Pictures:
    """How probe images are drawn.

    Args:
        size: The longer side of one picture in a panel, in pixels. Two stand beside each other, and
            loggers show pictures about as wide as two of 192; larger ones take more space in logs.
        mean: Channel means of the images' normalization, to undo it. Without it and `std`, those of
            the datamodule are taken (its attributes `image_mean` and `image_std`); if it has none,
            images are shown as they are, or stretched to [0, 1] if they are outside of it.
        std: Channel standard deviations of the images' normalization.
        class_names: Class names for captions, a list, or a mapping from numbers; by default
            `class_names` of the datamodule or module, or the prompts that images are compared with.
        targets: How many classes, or texts, are explained in a panel: what is explained anyway,
            then what else labels say is true, then what has the largest scores. More than one gives
            each rows of its own; the others are explained for it.
    """

    size: int = 192
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    class_names: Sequence[str] | Mapping[int, str] | None = None
    targets: int = 1

    def check(self) -> None:
        """Check the numbers and the names.

        Raises:
            AuditError: If they cannot work.
        """
        at_least(32, self.size, "size")
        at_least(1, self.targets, "targets")
        class_list(self.class_names)

    def filled(self, owners: Sequence[Any]) -> Pictures:
        """Return the settings with what other objects say of the images, if they say nothing.

        Args:
            owners: The datamodule, or None, and the module and others after it.

        Raises:
            AuditError: If class names have no form that can be read.
        """
        names = self.class_names
        for owner in owners:
            names = getattr(owner, "class_names", None) if names is None else names
        mean, std = self.mean, self.std
        if mean is None and std is None:
            mean, std = (_channels(owners[0], name) for name in ("image_mean", "image_std"))
        return replace(self, mean=mean, std=std, class_names=class_list(names))


def class_list(names: Any) -> Sequence[str] | None:
    """Return class names by their numbers.

    Args:
        names: A sequence, a mapping from numbers (or numbers as text) to names, or one from names
            to numbers; or None.

    Raises:
        AuditError: If it is something else, such as the name of a file.
    """
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Sequence | Mapping | Tensor):
        raise AuditError(
            f"LibraGradAudit needs `class_names` to be a list of names, or a mapping from numbers "
            f"to names, but got {names!r}; read the names from the file first."
        )
    if not isinstance(names, Mapping):
        return [str(name) for name in names]
    if all(isinstance(value, int) for value in names.values()):
        names = {number: name for name, number in names.items()}
    numbered = {int(number): str(name) for number, name in names.items()}
    return [numbered.get(i, str(i)) for i in range(max(numbered, default=-1) + 1)]


@dataclass(frozen=True, eq=False)
class DrawnPanel:
    """A probe image that was drawn.

    Attributes:
        key: What it is remembered by.
        tag: Its name in loggers, such as ``image_000/sandal``.
        picture: The panel, uint8 `[3, Hp, Wp]`.
        image: The image, floating point in [0, 1], `[3, H, W]`.
        moment: Its maps, and what was explained, for a strip.
        label: What is true of it, or an empty text.
    """

    key: Key
    tag: str
    picture: Tensor
    image: Tensor
    moment: StripMoment
    label: str


@dataclass
class PanelDrawer:
    """Draws images as they are explained: the first of the probe set, the worst and the best one.

    Attributes:
        pictures: How to draw.
        count: How many of the first ones to draw.
        extremes: Finds the worst and the best one, which need not be among the first; or None.
        drawn: Panels of the first ones, by their numbers.
    """

    pictures: Pictures
    count: int
    extremes: Extremes | None = None
    drawn: dict[int, DrawnPanel] = field(default_factory=dict)
    _outermost: dict[str, DrawnPanel] = field(default_factory=dict)

    @property
    def class_names(self) -> Sequence[str] | None:
        """Names of the classes by their numbers, or None."""
        return class_list(self.pictures.class_names)

    def draw(self, chunk: ExplainedChunk) -> None:
        """Draw those images of a chunk that are among the first ones."""
        for row, number in enumerate(chunk.numbers):
            if number < self.count and number not in self.drawn:
                self.drawn[number] = self._panel(chunk, row)
        for found in () if self.extremes is None else self.extremes.new_in(chunk):
            known = self.drawn.get(chunk.numbers[found.row])
            panel = known or self._panel(chunk, found.row, found.remark)
            self._outermost[found.name] = replace(panel, tag=found.name)

    def panels(self) -> list[DrawnPanel]:
        """Return the first images, then the worst and the best one if there are more."""
        first = [panel for _, panel in sorted(self.drawn.items())]
        more = self.extremes is not None and self.extremes.seen > len(first)
        return [*first, *(self._outermost.values() if more else ())]

    def named(self, name: str) -> dict[str, Tensor]:
        """Return the panels as ``<name>/image_000/<class>`` and so on."""
        return {f"{name}/{panel.tag}": panel.picture for panel in self.panels()}

    def _panel(self, chunk: ExplainedChunk, row: int, *more: str) -> DrawnPanel:
        samples, pictures = chunk.samples, self.pictures
        pixels = samples.pixels[row : row + 1].cpu().float()
        image = to_display_range(pixels, pictures.mean, pictures.std)[0]
        names = self.class_names
        targets = self._targets(chunk, row, names)
        by_class = len(targets) > 1 and any(target.mask is not None for target in targets)
        first = chunk.inputs[0]
        masks = first.masks if pictures.targets == 1 else samples.masks
        mask = None if masks is None or by_class else masks[row].cpu()
        below = [*remarks(chunk, row, names), *more]
        placement = first.explanation.placement
        label, task = None if chunk.labels is None else chunk.labels[row], first.explanation.task
        tag = label_tag(label, task, names)
        return DrawnPanel(
            chunk.keys[row],
            f"image_{chunk.numbers[row]:03d}" + (f"/{tag}" if tag else ""),
            share_panel(
                *(image, targets, mask, caption(below)),
                column_size=pictures.size,
                placement=placement,
            ),
            image,
            StripMoment(explained(chunk, row, names), targets[0].maps, placement),
            caption([part for part in below if part.startswith("label")]),
        )

    def _targets(
        self, chunk: ExplainedChunk, row: int, names: Sequence[str] | None
    ) -> list[PanelTarget]:
        if self.pictures.targets == 1:
            maps = {
                i.explanation.rules.name: i.explanation.attribution[row].float().cpu()
                for i in chunk.inputs
            }
            notes = {name: map_note(chunk, row, name, found) for name, found in maps.items()}
            return [PanelTarget("", maps, notes)]
        found = islice(chunk.targets.of(row), self.pictures.targets)
        return [PanelTarget(title(t, names), t.maps, mask=_on_cpu(t.mask)) for t in found]


def _on_cpu(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.cpu()


def _channels(data: Any, name: str) -> tuple[float, ...] | None:
    """Return the numbers, one per channel, that a data module has under a name, or None."""
    found = getattr(data, name, None)
    return None if found is None else tuple(torch.as_tensor(found).flatten().tolist())
