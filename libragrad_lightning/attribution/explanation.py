"""What is known of a batch that was explained under one rule set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from libragrad_lightning.attribution.drawing import (
    MOST_DRAWN,
    Drawing,
    ExplainedImages,
    largest,
    listed,
)
from libragrad_lightning.attribution.rewards import reward_function
from libragrad_lightning.attribution.tasks import Task
from libragrad_lightning.backward import LibraGradError, RuleSet
from libragrad_lightning.placement import Placement

SumsOf: TypeAlias = Literal["reward", "logit"]
"""What attributions are added up for: what is differentiated, or the target's logit."""

OF_REWARD: tuple[SumsOf, ...] = ("reward",)

_OVER_LEVELS = ("reward_sums", "logit_sums")


@dataclass(frozen=True, repr=False)
class Explanation(Drawing):
    """The explanation of a batch under one rule set; indexing gives that of some of its images.

    Attributes:
        rules: The rule set.
        attribution: Signed map over patches `[B, h, w]`.
        prefix: Attributions of the prefix tokens `[B, P]`.
        token_biases: What the biases contribute to the reward, by token `[B, P + h * w]`; part of
            the attribution of the FullGrad methods. None if nobody asked for it.
        image_biases: What biases contribute that belong to no token `[B]`, as those of the head;
            None if nobody asked for it.
        logits: `[B, C]`.
        target: The explained classes `[B]`.
        task: What the logits mean.
        reward_sums: `[L, B]`, the FullGrad sums of the reward at every level; each row is the
            `linear_reward` if the rule set is complete. None if nobody asked for it.
        linear_reward: `[B]`, sum_c r_c z_c over the logits z with the gradient r of the reward, the
            combination of logits that is differentiated. None without `reward_sums`.
        logit_sums: `[L, B]`, the FullGrad sums of the target's logit at every level; each row is
            the logit if the rule set is complete. None if nobody asked for it.
        placement: Where the patches of the map lie in the image.
        shown: The images, to draw the maps over them; those of audits are not kept.
    """

    rules: RuleSet
    attribution: Tensor
    prefix: Tensor
    token_biases: Tensor | None
    image_biases: Tensor | None
    logits: Tensor
    target: Tensor
    task: Task = "multiclass"
    reward_sums: Tensor | None = None
    linear_reward: Tensor | None = None
    logit_sums: Tensor | None = None
    placement: Placement = Placement()
    shown: ExplainedImages | None = None

    def __repr__(self) -> str:
        height, width = self.attribution.shape[1:]
        images = f"{len(self)} image{'s' * (len(self) != 1)}"
        return (
            f"Explanation({images}, {height} x {width}, rules={self.rules.name!r}, "
            f"target={listed(self.target)}{self._completeness()})"
        )

    def _completeness(self) -> str:
        if self.reward_sums is not None:
            return f", largest residual {largest(self.residuals):.1e}"
        if self.logit_sums is not None:
            return f", largest residual of the logit {largest(self.logit_residuals):.1e}"
        return ""

    def __len__(self) -> int:
        return len(self.attribution)

    def __getitem__(self, index: int | slice) -> Explanation:
        rows = slice(index, index + 1 or None) if isinstance(index, int) else index
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"{len(self)} images were explained, but the index is {index}.")
        shown = None if self.shown is None else self.shown[rows]
        some = self._each(lambda name, t: t[:, rows] if name in _OVER_LEVELS else t[rows])
        return replace(some, shown=shown)

    def to(self, device: torch.device | str) -> Explanation:
        """Return the explanation with its tensors on a device; the images stay where they are."""
        return self._each(lambda _, tensor: tensor.to(device))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return the attribution for NumPy, `[B, h, w]`; bfloat16 as float32."""
        maps = self.attribution.detach().cpu()
        maps = maps.float() if maps.dtype is torch.bfloat16 else maps
        return np.asarray(maps.numpy(), dtype)

    @property
    def target_logit(self) -> Tensor:
        """The explained logits `[B]`."""
        return reward_function("logit", self.task)(self.logits, self.target)

    @property
    def residuals(self) -> Tensor:
        """How far the FullGrad sums at every level are from what is differentiated, `[L, B]`.

        That is the `linear_reward`. Zero up to rounding under a complete rule set;
        `diagnosis.explain_incompleteness` finds out where a residual arises.

        Raises:
            LibraGradError: If the sums of the reward were not asked for.
        """
        if self.reward_sums is None or self.linear_reward is None:
            raise LibraGradError(_not_asked("reward"))
        return self.reward_sums - self.linear_reward

    @property
    def logit_residuals(self) -> Tensor:
        """How far the FullGrad sums at every level are from the explained logits, `[L, B]`.

        Raises:
            LibraGradError: If the sums of the logit were not asked for.
        """
        if self.logit_sums is None:
            raise LibraGradError(_not_asked("logit"))
        return self.logit_sums - self.target_logit

    def heatmap(self, size: tuple[int, int]) -> Tensor:
        """Return the signed map upsampled bicubically to `[B, H, W]`, as the paper scores it.

        Patches lie where the model read them; what it does not read of the image has 0.
        """
        return self.placement.upsampled(self.attribution, size)

    @property
    def columns(self) -> Mapping[str, Explanation]:
        """What is drawn beside the images, by the titles of the columns."""
        return {self.rules.name: self}

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


def _not_asked(what: SumsOf) -> str:
    return (
        f"Attributions of this explanation were not added up for the {what}; add {what!r} to "
        "`sums` when you call `explain`."
    )
