"""What metrics of the audit are fed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from libragrad_lightning.attribution import Explanation
from libragrad_lightning.perturbation import DeletionLogits, GroupLogits


@dataclass(frozen=True)
class MetricInputs:
    """All that a metric may look at for one chunk and one rule set.

    Attributes:
        explanation: The explanation.
        informative: Which maps tell patches apart, bool `[B]`; the others are never scored.
        masks: Object masks, bool `[B, H, W]`, or None.
        ignore: Pixels that do not count beside masks, bool `[B, H, W]`, or None.
        deletion: Logits under deletion, or None if no metric asks for them.
        previous: The maps of the audit before, `[B, h, w]`, NaN for images it did not have; None if
            there was none of this size.
        other_masks: Masks of other objects, bool `[B, H, W]`, or None.
        groups: Logits without groups of patches, or None if no metric asks for them.
    """

    explanation: Explanation
    informative: Tensor
    masks: Tensor | None = None
    ignore: Tensor | None = None
    deletion: DeletionLogits | None = None
    previous: Tensor | None = None
    other_masks: Tensor | None = None
    groups: GroupLogits | None = None

    @cached_property
    def heatmaps(self) -> Tensor | None:
        """The maps upsampled to the masks, `[B, H, W]`."""
        if self.masks is None:
            return None
        return self.explanation.heatmap((self.masks.shape[-2], self.masks.shape[-1]))

    def named(self) -> dict[str, Any]:
        """Return what a user's own metric may ask for by the names of its `update`.

        Rows of maps that do not tell patches apart are left out.
        """
        found = self.explanation
        mif = None if self.deletion is None else self.deletion.most_influential_first
        lif = None if self.deletion is None else self.deletion.least_influential_first
        inputs = {
            "attribution": found.attribution if self.heatmaps is None else self.heatmaps,
            "mask": self.masks,
            "other_mask": self.other_masks,
            "ignore": self.ignore,
            "logits": found.logits,
            "target": found.target,
            "masked_logits": mif,
            "mif_logits": mif,
            "lif_logits": lif,
            "reference": self.previous,
            "group_logits": None if self.groups is None else self.groups.logits,
            "salience": None if self.groups is None else self.groups.salience,
        }
        given = {name: self.scored(t) for name, t in inputs.items() if t is not None}
        if found.logit_sums is not None:
            given["attribution_total"] = found.logit_sums[0]
        given["logit"] = found.target_logit
        return given

    def scored(self, tensor: Tensor) -> Tensor:
        """Return the rows of a tensor whose maps tell patches apart."""
        return tensor if self._all_informative else tensor[self.informative]

    @cached_property
    def _all_informative(self) -> bool:
        return bool(self.informative.all())
