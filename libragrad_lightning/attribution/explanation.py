"""What is known of a batch that was explained under one rule set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.attribution.drawing import (
    MOST_DRAWN,
    Drawing,
    ExplainedImages,
    explanation_figure,
    largest,
    listed,
)
from libragrad_lightning.attribution.rewards import reward_function
from libragrad_lightning.attribution.tasks import Task
from libragrad_lightning.backward import RuleSet
from libragrad_lightning.heatmaps import Style


@dataclass(frozen=True, repr=False)
class Explanation(Drawing):
    """The explanation of a batch under one rule set; indexing gives that of some of its images.

    Attributes:
        rules: The rule set.
        attribution: Signed map over patches `[B, h, w]`.
        prefix: Attributions of the prefix tokens `[B, P]`.
        token_biases: What the biases contribute to the reward, by token `[B, P + h * w]`; part of
            the attribution of the FullGrad methods.
        image_biases: What biases contribute that belong to no token `[B]`, as those of the head.
        fullgrad_sums: `[L, B]`, the FullGrad sums of the target's logit at every level; each row is
            the logit if the rule set is complete.
        logits: `[B, C]`.
        target: The explained classes `[B]`.
        task: What the logits mean.
        shown: The images, to draw the maps over them; those of audits are not kept.
    """

    rules: RuleSet
    attribution: Tensor
    prefix: Tensor
    token_biases: Tensor
    image_biases: Tensor
    fullgrad_sums: Tensor
    logits: Tensor
    target: Tensor
    task: Task = "multiclass"
    shown: ExplainedImages | None = None

    def __repr__(self) -> str:
        height, width = self.attribution.shape[1:]
        images = f"{len(self)} image{'s' * (len(self) != 1)}"
        return (
            f"Explanation({images}, {height} x {width}, rules={self.rules.name!r}, "
            f"target={listed(self.target)}, largest residual {largest(self.residuals):.1e})"
        )

    def __len__(self) -> int:
        return len(self.attribution)

    def __getitem__(self, index: int | slice) -> Explanation:
        rows = slice(index, index + 1 or None) if isinstance(index, int) else index
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"{len(self)} images were explained, but the index is {index}.")
        shown = None if self.shown is None else self.shown[rows]
        some = self._each(lambda name, t: t[:, rows] if name == "fullgrad_sums" else t[rows])
        return replace(some, shown=shown)

    def to(self, device: torch.device | str) -> Explanation:
        """Return the explanation with its tensors on a device; the images stay where they are."""
        return self._each(lambda _, tensor: tensor.to(device))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return the attribution for NumPy, `[B, h, w]`; bfloat16 as float32."""
        maps = self.attribution.detach().cpu()
        return (maps.float() if maps.dtype is torch.bfloat16 else maps).numpy().__array__(dtype)

    @property
    def target_logit(self) -> Tensor:
        """The explained logits `[B]`."""
        return reward_function("logit", self.task)(self.logits, self.target)

    @property
    def residuals(self) -> Tensor:
        """How far the FullGrad sums at every level are from the explained logits, `[L, B]`.

        Zero up to rounding under a complete rule set; `diagnosis.explain_incompleteness` finds out
        where a residual arises.
        """
        return self.fullgrad_sums - self.target_logit

    def heatmap(self, size: tuple[int, int]) -> Tensor:
        """Return the signed map upsampled bicubically to `[B, H, W]`, as the paper scores it."""
        resized = F.interpolate(
            self.attribution[:, None], size=size, mode="bicubic", align_corners=False
        )
        return resized[:, 0]

    def figure(
        self,
        images: Tensor | None = None,
        *,
        class_names: Sequence[str] = (),
        style: Style = "positive",
        column_size: int = 224,
    ) -> Tensor:
        """Draw a line for each image: the image, its map, and below them what is explained."""
        return explanation_figure(
            {self.rules.name: self},
            images,
            class_names=class_names,
            style=style,
            column_size=column_size,
        )

    def preview(self) -> Tensor | None:
        """Return the figure of the first images, None if they were not kept."""
        return None if self.shown is None else self[:MOST_DRAWN].figure()

    def _each(self, change: Callable[[str, Tensor], Tensor]) -> Explanation:
        """Return the explanation with all of its tensors changed, by their names."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors: dict[str, Any] = {
            n: change(n, v) for n, v in values.items() if isinstance(v, Tensor)
        }
        return replace(self, **tensors)
