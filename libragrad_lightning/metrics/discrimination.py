"""Do maps of one class tell its object from another one in the image?"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch

from libragrad_lightning.metrics.functional.discrimination import (
    class_discrimination,
    contested,
    shared_pixels,
    target_discrimination,
    target_share,
)
from libragrad_lightning.metrics.functional.maps import is_constant
from libragrad_lightning.metrics.sample_mean import SampleMean

if TYPE_CHECKING:
    from torch import Tensor


class TwoObjectsMetric(SampleMean):
    """What the metrics have in common that look at two objects in each image.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.
    """

    higher_is_better: bool = True
    plot_upper_bound: float = 1.0

    num_skipped: Tensor
    num_constant: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_count("num_skipped")
        self.add_count("num_constant")

    def _add_beside(
        self, values: Tensor, objects: Tensor, left_out: Tensor, constant: Tensor
    ) -> None:
        """Add values [B] of images whose objects are [B, 2, H, W], but for pixels left out."""
        found = (objects & ~left_out[:, None]).flatten(2).any(dim=2).all(dim=1)
        self._add(values, num_skipped=~found, num_constant=constant)


class ClassDiscrimination(TwoObjectsMetric):
    r"""How much better maps find the object of their own class than that of another in the image.

    With :math:`\text{AP}_{ij}` the average precision of the map of class i on the mask of class j,
    averaged over images:

    .. math:: \tfrac{1}{2} (\text{AP}_{11} - \text{AP}_{12} + \text{AP}_{22} - \text{AP}_{21})

    Maps that do not depend on the class score exactly 0. Pixels that belong to both objects are
    left out. Left out and counted are images in which an object has no pixel that counts (state
    ``num_skipped``), of which a map is constant (``num_constant``) or not finite (``num_invalid``).

    As input to ``forward`` and ``update`` the metric accepts:

    - ``class_attribution``: signed maps of two classes that are both in the image [B, 2, H, W], any
      floating point type.
    - ``class_mask``: pixels of their objects, in the same order [B, 2, H, W], boolean.
    - ``ignore``: pixels to leave out [B, H, W], boolean, optional.

    As output of ``forward`` and ``compute`` it returns a scalar in [-1, 1], NaN without a valid
    image.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import ClassDiscrimination
        >>> class_attribution = torch.tensor([[[[0.9, 0.1, 0.0]], [[0.0, 0.9, 0.1]]]])
        >>> class_mask = torch.tensor([[[[True, False, False]], [[False, True, False]]]])
        >>> ClassDiscrimination()(class_attribution, class_mask).float()
        tensor(0.5833)
    """

    plot_lower_bound: float = -1.0
    total_name = "class_discrimination"

    def update(
        self, class_attribution: Tensor, class_mask: Tensor, ignore: Tensor | None = None
    ) -> None:
        """Add the images of one batch.

        Args:
            class_attribution: Signed maps of two classes [B, 2, H, W], any floating point type.
            class_mask: Pixels of their objects [B, 2, H, W], boolean.
            ignore: Pixels to leave out [B, H, W], boolean; all pixels count by default.
        """
        values = class_discrimination(class_attribution, class_mask, ignore)
        left_out = contested(class_attribution, class_mask, ignore)
        first, second = (is_constant(maps, left_out) for maps in class_attribution.unbind(dim=1))
        self._add_beside(values, class_mask, left_out, first | second)


class TargetMetric(TwoObjectsMetric):
    """What the metrics have in common that look at a map of one class, its object and another.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.
    """

    def update(
        self, attribution: Tensor, mask: Tensor, other_mask: Tensor, ignore: Tensor | None = None
    ) -> None:
        """Add the images of one batch.

        Args:
            attribution: Signed maps [B, H, W], any floating point type.
            mask: Pixels of the object of the map's class [B, H, W], boolean.
            other_mask: Pixels of other objects [B, H, W], boolean.
            ignore: Pixels to leave out [B, H, W], boolean; all pixels count by default.
        """
        left_out = shared_pixels(attribution, mask, other_mask, ignore)
        values = self._values(attribution, mask, other_mask, left_out)
        objects = torch.stack([mask, other_mask], dim=1)
        self._add_beside(values, objects, left_out, is_constant(attribution, left_out))

    @abstractmethod
    def _values(
        self, attribution: Tensor, mask: Tensor, other_mask: Tensor, ignore: Tensor
    ) -> Tensor: ...


class TargetDiscrimination(TargetMetric):
    """How much better maps of one class find its object than another object in the image.

    The average precision of the map on the object of its class less that on the other, averaged
    over maps. If both classes of each image are explained, it is `ClassDiscrimination`. Pixels that
    belong to both objects are left out. Left out and counted are images in which one of the two has
    no pixel that counts (state ``num_skipped``), constant maps (``num_constant``) and maps with a
    non-finite value (``num_invalid``).

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution``: signed maps [B, H, W], any floating point type.
    - ``mask``: pixels of the object of the map's class [B, H, W], boolean.
    - ``other_mask``: pixels of other objects [B, H, W], boolean.
    - ``ignore``: pixels to leave out [B, H, W], boolean, optional.

    As output of ``forward`` and ``compute`` it returns a scalar in [-1, 1], NaN without a valid
    image.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import TargetDiscrimination
        >>> attribution = torch.tensor([[[0.9, 0.1, 0.0]]])
        >>> mask, other_mask = torch.eye(3, dtype=torch.bool)[:2, None, None]
        >>> TargetDiscrimination()(attribution, mask, other_mask).item()
        0.5
    """

    plot_lower_bound: float = -1.0
    total_name = "target_discrimination"

    def _values(
        self, attribution: Tensor, mask: Tensor, other_mask: Tensor, ignore: Tensor
    ) -> Tensor:
        return target_discrimination(attribution, mask, other_mask, ignore)


class TargetShare(TargetMetric):
    """How much of what maps of one class show on objects lies on the object of the class.

    The sum of the positive attribution on that object, as a share of its sum on that object and on
    others, averaged over maps: 1/2 for maps that prefer none of two alike objects. Pixels that
    belong to both are left out. Left out and counted are images in which one of the two has no
    pixel that counts (state ``num_skipped``), constant maps (``num_constant``), and maps that are
    not finite or nowhere positive on the objects (``num_invalid``).

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution``: signed maps [B, H, W], any floating point type.
    - ``mask``: pixels of the object of the map's class [B, H, W], boolean.
    - ``other_mask``: pixels of other objects [B, H, W], boolean.
    - ``ignore``: pixels to leave out [B, H, W], boolean, optional.

    As output of ``forward`` and ``compute`` it returns a scalar in [0, 1], NaN without a valid
    image.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import TargetShare
        >>> attribution = torch.tensor([[[0.75, 0.25, 0.0]]])
        >>> mask, other_mask = torch.eye(3, dtype=torch.bool)[:2, None, None]
        >>> TargetShare()(attribution, mask, other_mask).item()
        0.75
    """

    plot_lower_bound: float = 0.0
    total_name = "target_share"

    def _values(
        self, attribution: Tensor, mask: Tensor, other_mask: Tensor, ignore: Tensor
    ) -> Tensor:
        return target_share(attribution, mask, other_mask, ignore)
