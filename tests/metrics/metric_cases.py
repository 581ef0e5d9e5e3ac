"""One example of every metric, with a source of random batches for it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from libragrad_lightning.metrics import (
    AOPC,
    CompletenessError,
    DeletionAccuracy,
    DeletionAccuracyDrop,
    LogOddsDrop,
    RelativeCompletenessError,
    SegmentationAP,
    SymmetricRelevanceGain,
)
from libragrad_lightning.metrics.sample_mean import SampleMean

LEVELS, CLASSES, SIDE = 4, 3, 6
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    make: Callable[[], SampleMean]
    arguments: tuple[str, ...]
    spoil: str  # the argument whose first sample is made non-finite to make that sample invalid
    higher_is_better: bool = True

    def batch(self, size: int, seed: int = 0) -> Batch:
        whole = draw(size, seed)
        return {name: whole[name] for name in self.arguments}

    def spoilt(self, size: int, value: float = float("nan")) -> Batch:
        batch = self.batch(size)
        batch[self.spoil].view(size, -1)[0, -1] = value
        return batch


def draw(size: int, seed: int = 0) -> Batch:
    """Return a batch that holds the arguments of all metrics."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=generator, dtype=torch.float64)

    mask = normal(SIDE, SIDE) > 0.5
    mask[:, 0, 0] = True
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
    }


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
    "srg": Case(
        lambda: SymmetricRelevanceGain(LEVELS), ("mif_logits", "lif_logits", "target"), "lif_logits"
    ),
    "completeness": Case(CompletenessError, ("attribution_total", "logit"), "logit", False),
    "relative_completeness": Case(
        RelativeCompletenessError, ("attribution_total", "logit"), "attribution_total", False
    ),
    "segmentation_ap": Case(SegmentationAP, ("attribution", "mask"), "attribution"),
}


def split(batch: Batch, *sizes: int) -> list[Batch]:
    """Cut a batch into consecutive shards."""
    shards = [dict[str, Tensor]() for _ in sizes]
    for name, value in batch.items():
        for shard, part in zip(shards, value.split(list(sizes)), strict=True):
            shard[name] = part
    return shards
