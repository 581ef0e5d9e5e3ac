"""Deletion and insertion curves of any score, and the areas under them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import torch

from libragrad_lightning.metrics.functional.checks import check_fractions
from libragrad_lightning.metrics.functional.curves import area_under_curve, check_scores
from libragrad_lightning.metrics.sample_mean import SampleCurve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor


class ScoreCurve(SampleCurve):
    """Mean over samples of a score at fractions of an image; the base of the metrics below.

    Args:
        fractions: The S fractions of the image that are deleted or inserted, rising, in [0, 1].
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If the fractions are not two or more rising numbers in [0, 1].
    """

    def __init__(self, fractions: Sequence[float], **kwargs: Any) -> None:
        super().__init__(len(check_fractions(fractions)), **kwargs)
        self.fractions = check_fractions(fractions)

    def statistic(self, mean: Tensor) -> Tensor:
        """Return the areas under mean curves [R, S]: [R]."""
        return area_under_curve(mean, self.fractions)

    def _add_scores(self, scores: Tensor) -> None:
        check_scores(self.total_name, scores, len(self.fractions))
        self._add(scores.to(getattr(self, self.total_name)))


class WholeCurve(ScoreCurve):
    """A score curve whose value is the curve, not the area under it."""

    def compute(self) -> Tensor:
        """Return the mean over samples at every fraction, [S]."""
        return self._mean()

    def plot(
        self, val: Tensor | Sequence[Tensor] | None = None, ax: Axes | None = None
    ) -> tuple[Figure | None, Any]:
        """Draw one or several curves over the fractions with matplotlib.

        Args:
            val: Results of ``forward`` or ``compute``; by default the current value.
            ax: Axes to draw on; by default a new figure's.

        Returns:
            The figure (None where axes are given) and its axes.
        """
        figure, axes = plt.subplots() if ax is None else (None, ax)
        found = self.compute() if val is None else val
        for curve in [found] if isinstance(found, torch.Tensor) else found:
            axes.plot(self.fractions, curve.detach().cpu(), marker="o")
        axes.set_xlabel("fraction")
        axes.set_ylabel(type(self).__name__)
        return figure, axes


class DeletionScores(ScoreCurve):
    """The scores under deletion that the two metrics below read."""

    higher_is_better: bool = False
    total_name = "deletion_scores"

    def update(self, deletion_scores: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            deletion_scores: Scores after deletion [B, S], any floating point type.
        """
        self._add_scores(deletion_scores)


class DeletionCurve(WholeCurve, DeletionScores):
    """Mean score at every fraction of the image that is deleted, most influential first.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``deletion_scores``: scores of the explained class after deletion [B, S], any floating point
      type: probabilities as ``functional.target_probability`` reads them off any head, or any other
      number that the explanation is about.

    As output of ``forward`` and ``compute`` it returns the curve [S], NaN without a valid sample.

    Args:
        fractions: The S fractions of the image that are deleted, rising, in [0, 1].
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument, a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import DeletionCurve
        >>> metric = DeletionCurve([0.0, 0.5, 1.0])
        >>> metric(torch.tensor([[1.0, 0.5, 0.0], [1.0, 0.25, 0.0]])).tolist()
        [1.0, 0.375, 0.0]

    Source:
        Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models (BMVC
        2018), section 4.2.
    """


class DeletionAUC(DeletionScores):
    r"""Area under the deletion curve, most influential first (lower is better).

    .. math:: \frac{1}{\phi_S - \phi_1} \sum_s (\phi_{s+1} - \phi_s) \, \frac{f_s + f_{s+1}}{2}

    Over a part of the range from 0 to 1, the area is divided by the part's length, so that values
    stay on the scale of the score.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``deletion_scores``: scores of the explained class after deletion [B, S], any floating point
      type.

    As output of ``forward`` and ``compute`` it returns a scalar, NaN without a valid sample;
    ``curve()`` gives the mean score at every fraction, [S].

    Args:
        fractions: The S fractions of the image that are deleted, rising, in [0, 1].
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument, a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import DeletionAUC
        >>> DeletionAUC([0.0, 0.5, 1.0])(torch.tensor([[1.0, 0.3, 0.0]])).float()
        tensor(0.4000)

    Source:
        Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models (BMVC
        2018), section 4.2.
    """


class InsertionScores(ScoreCurve):
    """The scores under insertion that the two metrics below read."""

    higher_is_better: bool = True
    total_name = "insertion_scores"

    def update(self, insertion_scores: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            insertion_scores: Scores after insertion [B, S], any floating point type.
        """
        self._add_scores(insertion_scores)


class InsertionCurve(WholeCurve, InsertionScores):
    """Mean score at every fraction of the image that is inserted, most influential first.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``insertion_scores``: scores of the explained class after insertion [B, S], any floating point
      type: probabilities as ``functional.target_probability`` reads them off any head, or any other
      number that the explanation is about.

    As output of ``forward`` and ``compute`` it returns the curve [S], NaN without a valid sample.

    Args:
        fractions: The S fractions of the image that are inserted, rising, in [0, 1].
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument, a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import InsertionCurve
        >>> metric = InsertionCurve([0.0, 0.5, 1.0])
        >>> metric(torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.75, 1.0]])).tolist()
        [0.0, 0.625, 1.0]

    Source:
        Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models (BMVC
        2018), section 4.2.
    """


class InsertionAUC(InsertionScores):
    r"""Area under the insertion curve, most influential first (higher is better).

    .. math:: \frac{1}{\phi_S - \phi_1} \sum_s (\phi_{s+1} - \phi_s) \, \frac{f_s + f_{s+1}}{2}

    Over a part of the range from 0 to 1, the area is divided by the part's length, so that values
    stay on the scale of the score.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``insertion_scores``: scores of the explained class after insertion [B, S], any floating point
      type.

    As output of ``forward`` and ``compute`` it returns a scalar, NaN without a valid sample;
    ``curve()`` gives the mean score at every fraction, [S].

    Args:
        fractions: The S fractions of the image that are inserted, rising, in [0, 1].
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument, a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import InsertionAUC
        >>> InsertionAUC([0.0, 0.5, 1.0])(torch.tensor([[0.0, 0.7, 1.0]])).float()
        tensor(0.6000)

    Source:
        Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models (BMVC
        2018), section 4.2.
    """
