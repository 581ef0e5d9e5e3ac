"""How many maps explain nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libragrad_lightning.metrics.functional.maps import is_degenerate
from libragrad_lightning.metrics.sample_mean import SampleMean

if TYPE_CHECKING:
    from torch import Tensor


class DegenerateMapRate(SampleMean):
    """Share of maps that are constant or have a value that is not finite.

    Such maps rank nothing, but metrics that see only logits under deletion cannot know; this
    metric beside them tells.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution``: signed maps [B, H, W], any floating point type.

    As output of ``forward`` and ``compute`` it returns a scalar in [0, 1], NaN without an image;
    the states ``num_constant`` and ``num_nonfinite`` hold the two numbers apart.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Attributes:
        num_constant: State: number of finite maps with the same value everywhere.
        num_nonfinite: State: number of maps with a value that is not finite.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import DegenerateMapRate
        >>> nan = float("nan")
        >>> attribution = torch.tensor([[[0.0, 0.0]], [[1.0, nan]], [[1.0, 2.0]], [[3.0, 2.0]]])
        >>> metric = DegenerateMapRate()
        >>> metric(attribution).item(), metric.num_constant.item(), metric.num_nonfinite.item()
        (0.5, 1, 1)
    """

    higher_is_better: bool = False
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0
    total_name = "degenerate"

    num_constant: Tensor
    num_nonfinite: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_count("num_constant")
        self.add_count("num_nonfinite")

    def update(self, attribution: Tensor) -> None:
        """Add the maps of one batch.

        Args:
            attribution: Signed maps [B, H, W], any floating point type.
        """
        degenerate = is_degenerate(attribution)
        finite = attribution.flatten(1).isfinite().all(dim=1)
        self.num_nonfinite = self.num_nonfinite + (~finite).sum()
        self.num_constant = self.num_constant + (degenerate & finite).sum()
        self._add(degenerate.to(getattr(self, self.total_name)))
