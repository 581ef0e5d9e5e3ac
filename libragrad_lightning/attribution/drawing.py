"""Draws what explanations say: for a notebook, a script and a file."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from libragrad_lightning.attribution.rewards import reward_function
from libragrad_lightning.heatmaps import (
    Style,
    explanation_panel,
    stacked,
    to_display_range,
    to_pil,
)

if TYPE_CHECKING:
    from libragrad_lightning.attribution.explanation import Explanation

MOST_DRAWN = 16
"""How many images a notebook shows of an explanation."""


@dataclass(frozen=True, eq=False)
class ExplainedImages:
    """What was explained, to draw it.

    Attributes:
        images: As the model takes them, `[B, C, H, W]`.
        mean: What was subtracted from each channel; None if unknown.
        std: What each channel was divided by; None if unknown.
    """

    images: Tensor
    mean: Sequence[float] | Tensor | None = None
    std: Sequence[float] | Tensor | None = None

    def displayed(self) -> Tensor:
        """Return the images `[B, 3, H, W]` in [0, 1], on the CPU.

        Where the normalization is unknown they are stretched to that range, so that colors may be
        off.
        """
        return to_display_range(self.images, self.mean, self.std).cpu()

    def __getitem__(self, rows: slice) -> ExplainedImages:
        """Return some of the images."""
        return ExplainedImages(self.images[rows], self.mean, self.std)


class Drawing(ABC):
    """What can be drawn, saved, plotted, and seen in a notebook."""

    @property
    @abstractmethod
    def columns(self) -> Mapping[str, Explanation]:
        """What is drawn beside the images, by the titles of the columns."""

    def figure(
        self,
        images: Tensor | None = None,
        *,
        class_names: Sequence[str] = (),
        style: Style = "positive",
        column_size: int = 224,
    ) -> Tensor:
        """Draw a line for each image: the image, its maps, and below them what is explained.

        Args:
            images: `[B, C, H, W]`, to draw others than those that were explained, such as before
                their normalization.
            class_names: Names of the classes, in the order of the logits.
            style: ``positive`` shows the positive part, as the paper does; ``signed`` both signs.
            column_size: Aim for the longer side of each picture, in pixels.

        Returns:
            The figure `[3, H', W']`, uint8, on the CPU.

        Raises:
            ValueError: If the images are not there, or not as many, or the style is unknown.
        """
        return explanation_figure(
            self.columns,
            images,
            class_names=class_names,
            style=style,
            column_size=column_size,
        )

    @abstractmethod
    def preview(self) -> Tensor | None:
        """Return the figure of the first images, None if they are not there."""

    def save(
        self, path: str | os.PathLike[str], images: Tensor | None = None, **options: Any
    ) -> None:
        """Write the figure to a file, whose ending says in which format.

        Args:
            path: The file, such as ``map.png``.
            images: As for `figure`.
            options: As for `figure`.

        Raises:
            ValueError: If there is no such format, or the figure cannot be drawn.
        """
        to_pil(self.figure(images, **options)).save(path)

    def plot(self, images: Tensor | None = None, **options: Any) -> Any:
        """Show the figure by matplotlib, and return its figure and axes.

        Args:
            images: As for `figure`.
            options: As for `figure`.
        """
        import matplotlib.pyplot as plt

        drawn = self.figure(images, **options).movedim(0, -1).numpy()
        figure, axes = plt.subplots(figsize=(drawn.shape[1] / 100, drawn.shape[0] / 100))
        axes.imshow(drawn)
        axes.set_axis_off()
        return figure, axes

    def _repr_png_(self) -> bytes | None:
        """Show the first images in a notebook."""
        preview = self.preview()
        return None if preview is None else _as_png(preview)


def explanation_figure(
    explanations: Mapping[str, Explanation],
    images: Tensor | None = None,
    *,
    class_names: Sequence[str] = (),
    style: Style = "positive",
    column_size: int = 224,
) -> Tensor:
    """Draw a line for each image: the image, the map of each explanation, and what is explained.

    Args:
        explanations: Of the same images, by the titles of their columns.
        images: `[B, C, H, W]`, to draw others than those that were explained.
        class_names: Names of the classes, in the order of the logits.
        style: What of the maps is shown.
        column_size: Aim for the longer side of each picture, in pixels.

    Returns:
        The figure `[3, H', W']`, uint8, on the CPU.

    Raises:
        ValueError: If the images are not there, or not as many, or the style is unknown.
    """
    first = next(iter(explanations.values()))
    shown = first.shown if images is None else ExplainedImages(images)
    if shown is None or len(shown.images) != len(first):
        seen = "none are kept" if shown is None else f"there are {len(shown.images)}"
        raise ValueError(
            f"{len(first)} images were explained, but {seen}; pass `images` [B, C, H, W]."
        )
    captions = explained_captions(first, class_names)
    maps = {title: e.attribution.detach().float().cpu() for title, e in explanations.items()}
    displayed = shown.displayed()
    return stacked(
        [
            explanation_panel(
                displayed[i],
                {title: found[i] for title, found in maps.items()},
                caption=captions[i],
                style=style,
                column_size=column_size,
                placement=first.placement,
            )
            for i in range(len(first))
        ]
    )


def explained_captions(explanation: Explanation, class_names: Sequence[str] = ()) -> list[str]:
    """Return what is explained of each image: the class and what the model gives it.

    That is a probability where the logits mean classes, and the value itself of a quantity.
    """
    logits, target = explanation.logits.detach().float(), explanation.target
    if explanation.task == "regression":
        values = explanation.target_logit.float().tolist()
        numbers = [f"{value:.3g}" for value in values]
    else:
        likely = reward_function("probability", explanation.task)(logits, target).tolist()
        numbers = [f"{value:.0%}" if value >= 0.005 else "below 1%" for value in likely]
    return [
        f"{_class_name(index, class_names)}: {number}"
        for index, number in zip(target.tolist(), numbers, strict=True)
    ]


def _class_name(index: int, class_names: Sequence[str]) -> str:
    return class_names[index] if index < len(class_names) else f"class {index}"


def _as_png(figure: Tensor) -> bytes:
    """Return a figure `[3, H, W]`, uint8, as the content of a PNG file."""
    written = io.BytesIO()
    to_pil(figure).save(written, "PNG", compress_level=3)
    return written.getvalue()


def listed(numbers: Tensor, most: int = 4) -> str:
    """Return the first few of some numbers, as text."""
    values = ", ".join(str(n) for n in numbers[:most].tolist())
    return f"[{values}{', ...' if len(numbers) > most else ''}]"


def largest(numbers: Tensor) -> float:
    """Return the largest absolute value, 0 of none."""
    return (
        float(torch.nan_to_num(numbers.detach().abs(), nan=torch.inf).amax())
        if numbers.numel()
        else 0.0
    )
