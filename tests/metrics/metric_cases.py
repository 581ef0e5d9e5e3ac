"""One example of every metric, with a source of random batches for it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from libragrad_lightning.metrics import (
    AOPC,
    AverageDrop,
    AverageGain,
    AverageIncrease,
    ClassDiscrimination,
    CompletenessError,
    DegenerateMapRate,
    DeletionAccuracy,
    DeletionAccuracyDrop,
    DeletionAUC,
    DeletionCurve,
    EnergyInside,
    Infidelity,
    InsertionAUC,
    InsertionCurve,
    LogOddsDrop,
    MapCosineSimilarity,
    MapRankCorrelation,
    MapStructuralSimilarity,
    MaskIoU,
    MaxSensitivity,
    MuFidelity,
    PixelAccuracy,
    PointingGame,
    RelativeCompletenessError,
    RelativeDrop,
    RelevanceRankAccuracy,
    SaCo,
    SegmentationAP,
    SegmentationMaxF1,
    SymmetricRelevanceGain,
    TargetDiscrimination,
    TargetShare,
)
from libragrad_lightning.metrics.sample_mean import SampleMean

LEVELS, CLASSES, SIDE = 4, 3, 6
FRACTIONS = (0.0, 0.25, 0.5, 1.0)
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    make: Callable[[], SampleMean]
    arguments: tuple[str, ...]
    spoil: str  # the argument that can make a sample invalid by not being finite; "" for none
    higher_is_better: bool = True

    def batch(self, size: int, seed: int = 0) -> Batch:
        whole = draw(size, seed)
        return {name: whole[name] for name in self.arguments}

    def spoilt(self, size: int, value: float = float("nan")) -> Batch:
        batch = self.batch(size)
        batch[self.spoil].view(size, -1)[0, -1] = value
        if "target" in batch:  # some metrics look at no other class
            batch["target"][0] = CLASSES - 1
        return batch


def draw(size: int, seed: int = 0) -> Batch:
    """Return a batch that holds the arguments of all metrics."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=generator, dtype=torch.float64)

    mask = normal(SIDE, SIDE) > 0.5
    mask[:, 0, 0] = True
    other_mask = mask.roll(1, dims=2)
    class_mask = normal(2, SIDE, SIDE) > 0.5
    class_mask[:, :, 0, :2] = torch.eye(2, dtype=torch.bool)
    return {
        "logits": normal(CLASSES),
        "masked_logits": normal(LEVELS, CLASSES),
        "mif_logits": normal(LEVELS, CLASSES),
        "lif_logits": normal(LEVELS, CLASSES),
        "target": torch.randint(CLASSES, (size,), generator=generator),
        "attribution_total": normal(),
        "logit": normal(),
        "attribution": normal(SIDE, SIDE),
        "mask": mask,
        "other_mask": other_mask,
        "reference": normal(SIDE, SIDE),
        "deletion_scores": normal(LEVELS),
        "insertion_scores": normal(LEVELS),
        "class_attribution": normal(2, SIDE, SIDE),
        "class_mask": class_mask,
        "score": normal(),
        "output": normal(CLASSES),
        "masked_output": normal(LEVELS, CLASSES),
        "salience": normal(LEVELS).sort(1, descending=True).values,
        "drops": normal(LEVELS),
        "expected_change": normal(LEVELS),
        "change": normal(LEVELS),
        "perturbed_attribution": normal(LEVELS, SIDE, SIDE),
        "probability": normal().sigmoid(),
        "explained_probability": normal().sigmoid(),
    }


MASKED = ("attribution", "mask")
TWO_MASKED = (*MASKED, "other_mask")
PROBABILITIES = ("probability", "explained_probability")
DROP_ARGUMENTS = ("logits", "masked_logits", "target")
CASES = {
    "accuracy": Case(
        lambda: DeletionAccuracy(LEVELS), ("masked_logits", "target"), "masked_logits"
    ),
    "accuracy_drop": Case(
        lambda: DeletionAccuracyDrop(LEVELS), ("masked_logits", "target"), "masked_logits"
    ),
    "aopc": Case(lambda: AOPC(LEVELS), DROP_ARGUMENTS, "logits"),
    "log_odds": Case(lambda: LogOddsDrop(LEVELS), DROP_ARGUMENTS, "masked_logits"),
    "relative_drop": Case(
        lambda: RelativeDrop(LEVELS), ("output", "masked_output", "target"), "output"
    ),
    "srg": Case(
        lambda: SymmetricRelevanceGain(LEVELS), ("mif_logits", "lif_logits", "target"), "lif_logits"
    ),
    "completeness": Case(CompletenessError, ("attribution_total", "logit"), "logit", False),
    "relative_completeness": Case(
        RelativeCompletenessError, ("attribution_total", "logit"), "attribution_total", False
    ),
    "deletion_curve": Case(
        lambda: DeletionCurve(FRACTIONS), ("deletion_scores",), "deletion_scores", False
    ),
    "deletion_auc": Case(
        lambda: DeletionAUC(FRACTIONS), ("deletion_scores",), "deletion_scores", False
    ),
    "insertion_curve": Case(
        lambda: InsertionCurve(FRACTIONS), ("insertion_scores",), "insertion_scores"
    ),
    "insertion_auc": Case(
        lambda: InsertionAUC(FRACTIONS), ("insertion_scores",), "insertion_scores"
    ),
    "saco": Case(SaCo, ("salience", "drops"), "drops"),
    "mu_fidelity": Case(MuFidelity, ("salience", "drops"), "salience"),
    "infidelity": Case(Infidelity, ("expected_change", "change"), "change", False),
    "max_sensitivity": Case(
        MaxSensitivity, ("attribution", "perturbed_attribution"), "attribution", False
    ),
    "average_drop": Case(AverageDrop, PROBABILITIES, "probability", False),
    "average_gain": Case(AverageGain, PROBABILITIES, "explained_probability"),
    "average_increase": Case(AverageIncrease, PROBABILITIES, "probability"),
    "rank_accuracy": Case(RelevanceRankAccuracy, MASKED, "attribution"),
    "segmentation_ap": Case(SegmentationAP, MASKED, "attribution"),
    "max_f1": Case(SegmentationMaxF1, MASKED, "attribution"),
    "mask_iou": Case(MaskIoU, MASKED, "attribution"),
    "pixel_accuracy": Case(PixelAccuracy, MASKED, "attribution"),
    "pointing_game": Case(PointingGame, MASKED, "attribution"),
    "energy_inside": Case(EnergyInside, MASKED, "attribution"),
    "cosine": Case(MapCosineSimilarity, ("attribution", "reference"), "attribution"),
    "rank_correlation": Case(MapRankCorrelation, ("attribution", "reference"), "reference"),
    "ssim": Case(MapStructuralSimilarity, ("attribution", "reference"), "attribution"),
    "class_discrimination": Case(
        ClassDiscrimination, ("class_attribution", "class_mask"), "class_attribution"
    ),
    "target_discrimination": Case(TargetDiscrimination, TWO_MASKED, "attribution"),
    "target_share": Case(TargetShare, TWO_MASKED, "attribution"),
    "degenerate_maps": Case(DegenerateMapRate, ("attribution",), "", False),
}
SPOILABLE = {name: case for name, case in CASES.items() if case.spoil}


def split(batch: Batch, *sizes: int) -> list[Batch]:
    """Cut a batch into consecutive shards."""
    shards = [dict[str, Tensor]() for _ in sizes]
    for name, value in batch.items():
        for shard, part in zip(shards, value.split(list(sizes)), strict=True):
            shard[name] = part
    return shards
