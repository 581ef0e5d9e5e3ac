"""Infidelity and sensitivity, means over images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libragrad_lightning.metrics.functional.infidelity import infidelity, max_sensitivity
from libragrad_lightning.metrics.sample_mean import SampleMean

if TYPE_CHECKING:
    from torch import Tensor


class Infidelity(SampleMean):
    """By how much maps miss what perturbations do to the score, mean over images.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``expected_change``: the inner products of each map with R perturbations [B, R], floating
      point.
    - ``change``: by how much the score falls if they are taken away from the image [B, R].

    As output of ``forward`` and ``compute`` it returns a scalar, in units of the score squared, NaN
    without a valid sample.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import Infidelity
        >>> Infidelity()(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]])).item()
        2.0

    Source:
        Yeh et al., On the (In)fidelity and Sensitivity of Explanations (NeurIPS 2019), without
        scaling.
    """

    higher_is_better: bool = False
    plot_lower_bound: float = 0.0
    total_name = "infidelity"

    def update(self, expected_change: Tensor, change: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            expected_change: The inner products of maps and perturbations [B, R].
            change: By how much the score falls [B, R].
        """
        self._add(infidelity(expected_change, change))


class MaxSensitivity(SampleMean):
    """How far maps move, at most, when their image is perturbed a little, mean over images.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution``: maps [B, H, W], any floating point type.
    - ``perturbed_attribution``: maps of R perturbed images each [B, R, H, W].

    As output of ``forward`` and ``compute`` it returns a scalar of at least 0, as a share of the
    size of a map, NaN without a valid sample.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import MaxSensitivity
        >>> attribution = torch.tensor([[[3.0, 4.0]]])
        >>> MaxSensitivity()(attribution, torch.tensor([[[[3.0, 4.0]], [[3.0, 9.0]]]])).item()
        1.0

    Source:
        Yeh et al., On the (In)fidelity and Sensitivity of Explanations (NeurIPS 2019), as a share
        of the size of the map.
    """

    higher_is_better: bool = False
    plot_lower_bound: float = 0.0
    total_name = "max_sensitivity"

    def update(self, attribution: Tensor, perturbed_attribution: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            attribution: Maps [B, H, W].
            perturbed_attribution: Maps of R perturbed images each [B, R, H, W].
        """
        self._add(max_sensitivity(attribution, perturbed_attribution))
