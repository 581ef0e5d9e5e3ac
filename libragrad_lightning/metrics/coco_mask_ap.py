"""COCO's mask AP of thresholded maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from libragrad_lightning.metrics.float64_metric import Float64Metric
from libragrad_lightning.metrics.functional.checks import (
    check_boolean,
    check_floating_point,
    check_integer,
    check_shape,
)
from libragrad_lightning.metrics.functional.coco import (
    COCO_IOU_THRESHOLDS,
    Instance,
    coco_mask_average_precision,
    run_lengths,
)
from libragrad_lightning.metrics.functional.maps import is_constant, read_masked_maps
from libragrad_lightning.metrics.functional.segmentation import threshold_at_mean
from libragrad_lightning.metrics.map_metric import has_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

OBJECT, CROWD, PREDICTION = range(3)


class CocoMaskAP(Float64Metric):
    """COCO's average precision of instance masks, with maps cut at their mean as predictions.

    Every image predicts one instance: the pixels above the mean of its map. Left out and counted
    are images without a pixel of an object (state ``num_skipped``), constant maps
    (``num_constant``), and maps or scores that are not finite (``num_invalid``). The masks of all
    images are kept as compressed run lengths, because the precision is that of a ranking over all
    images.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``attribution``: signed maps [B, H, W], any floating point type.
    - ``mask``: pixels of the object [B, H, W], or of M objects per image [B, M, H, W], boolean;
      objects without a pixel fill up a batch.
    - ``score``: confidence of each prediction [B], such as the probability of the explained class.
    - ``label``: class index of each map [B], optional; all of one class by default.
    - ``mask_label``: class index of each mask [B] or [B, M], optional; by default the map's.
    - ``ignore``: pixels in which predictions do not count [B, H, W], boolean, optional: a crowd
      region in the terms of COCO.

    As output of ``forward`` and ``compute`` it returns a scalar in [0, 1], averaged over classes
    and thresholds, NaN without a valid image.

    Args:
        iou_thresholds: Intersections over union from which on a prediction counts as right.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument, a shape or a type is wrong.

    Example:
        >>> import torch
        >>> from libragrad_lightning.metrics import CocoMaskAP
        >>> attribution = torch.zeros(1, 8, 8)
        >>> attribution[0, 2:6, 2:6] = 1
        >>> CocoMaskAP()(attribution, attribution > 0, score=torch.tensor([0.9])).float()
        tensor(1.)

    Source:
        Lin et al., Microsoft COCO: Common Objects in Context (ECCV 2014).
    """

    higher_is_better: bool = True
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    num_skipped: Tensor
    num_constant: Tensor
    instances: list[Tensor]
    scores: list[Tensor]
    run_lengths: list[Tensor]

    def __init__(
        self, iou_thresholds: Sequence[float] = COCO_IOU_THRESHOLDS, **kwargs: Any
    ) -> None:
        if not iou_thresholds or not all(0 < threshold <= 1 for threshold in iou_thresholds):
            raise ValueError(
                "Expected argument `iou_thresholds` to be numbers in (0, 1]"
                f" but got {list(iou_thresholds)}."
            )
        super().__init__(**kwargs)
        self.iou_thresholds = tuple(iou_thresholds)
        self.add_count("num_skipped")
        self.add_count("num_constant")
        # Per instance: kind, class, height, width and number of bytes of its run lengths. The
        # prediction opens the rows of an image.
        self.add_rows("instances", torch.zeros(0, 5, dtype=torch.int64))
        self.add_rows("scores", torch.zeros(0, dtype=torch.float64))
        self.add_rows("run_lengths", torch.zeros(0, dtype=torch.uint8))

    def update(
        self,
        attribution: Tensor,
        mask: Tensor,
        score: Tensor,
        label: Tensor | None = None,
        mask_label: Tensor | None = None,
        ignore: Tensor | None = None,
    ) -> None:
        """Add the images of one batch.

        Args:
            attribution: Signed maps [B, H, W], any floating point type.
            mask: Pixels of the object [B, H, W], or of M objects per image [B, M, H, W]; boolean.
            score: Confidence of each prediction [B], any floating point type.
            label: Class index of each map [B], an integer type; 0 by default.
            mask_label: Class index of each mask [B] or [B, M], an integer type; by default the
                map's.
            ignore: Pixels in which predictions do not count [B, H, W], boolean; none by default.
        """
        maps = read_masked_maps(attribution, mask, None)
        batch, objects = maps.positive.shape[:2]
        label, mask_label = _labels(label, mask_label, mask)
        check_floating_point("score", score)
        check_shape("score", score, (batch,), "attribution")
        ignored = torch.zeros_like(attribution, dtype=torch.bool) if ignore is None else ignore
        check_boolean("ignore", ignored)
        check_shape("ignore", ignored, tuple(attribution.shape), "attribution")
        used = self._count(attribution, mask, score, maps.is_finite[:, 0])
        masks = torch.cat([threshold_at_mean(maps), maps.positive, ignored.flatten(1)[:, None]], 1)
        kinds = torch.tensor([PREDICTION, *[OBJECT] * objects, CROWD], device=mask.device)
        labels = torch.cat([label[:, None], mask_label, label[:, None]], dim=1)
        present = masks.any(dim=2) | (kinds == PREDICTION)
        present &= used[:, None]
        self._append(
            masks.unflatten(2, attribution.shape[1:])[present],
            kinds.expand(batch, -1)[present],
            labels[present],
            score[:, None].expand(labels.shape)[present],
        )

    def compute(self) -> Tensor:
        """Return the average precision, a scalar."""
        predictions: list[Instance] = []
        objects: list[Instance] = []
        lengths, scores = self._rows("instances"), self._rows("scores")
        encoded = bytes(self._rows("run_lengths").cpu().numpy())
        image, start = -1, 0
        for row, score in zip(lengths.tolist(), scores.tolist(), strict=True):
            kind, label, height, width, length = row
            image += kind == PREDICTION
            counts = encoded[start : start + length]
            instance = Instance(image, counts, (height, width), label, score, kind == CROWD)
            (predictions if kind == PREDICTION else objects).append(instance)
            start += length
        value = coco_mask_average_precision(predictions, objects, self.iou_thresholds)
        return scores.new_tensor(value)

    def _count(self, attribution: Tensor, mask: Tensor, score: Tensor, finite: Tensor) -> Tensor:
        """Count the samples of a batch, and return which of them are used [B]."""
        found, constant = has_object(mask, None), is_constant(attribution)
        finite = finite & score.isfinite()
        used = found & ~constant & finite
        self.num_skipped = self.num_skipped + (~found).sum()
        self.num_constant = self.num_constant + (found & constant).sum()
        self.num_invalid = self.num_invalid + (found & ~constant & ~finite).sum()
        self.num_samples = self.num_samples + used.sum()
        return used

    def _append(self, masks: Tensor, kinds: Tensor, labels: Tensor, scores: Tensor) -> None:
        """Add instances [I, H, W] with their kinds, classes and scores [I]."""
        if len(masks) == 0:
            return
        encoded = run_lengths(masks)
        lengths = kinds.new_tensor([len(counts) for counts in encoded])
        sizes = [torch.full_like(lengths, size) for size in masks.shape[1:]]
        self.instances.append(torch.stack([kinds, labels, *sizes, lengths], dim=1))
        self.scores.append(scores.detach().to(self._no_rows("scores")))
        joined = torch.frombuffer(bytearray(b"".join(encoded)), dtype=torch.uint8)
        self.run_lengths.append(joined.to(masks.device))


def _labels(label: Tensor | None, mask_label: Tensor | None, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Check class indices, and return those of maps [B] and of masks [B, M]."""
    batch = len(mask)
    if label is None:
        label = torch.zeros(batch, dtype=torch.int64, device=mask.device)
    check_integer("label", label)
    check_shape("label", label, (batch,), "mask")
    shape = tuple(mask.shape[:-2])
    if mask_label is None:
        mask_label = label.view(-1, *[1] * (len(shape) - 1)).expand(shape)
    check_integer("mask_label", mask_label)
    check_shape("mask_label", mask_label, shape, "mask")
    return label.long(), mask_label.long().reshape(batch, -1)
