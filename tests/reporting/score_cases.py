"""Scores of a few images under two rule sets."""

import torch

from libragrad_lightning.audit import ImageScores

LEVELS = (0.25, 0.5, 0.75)
RULES = ("plain", "libra")
COUNT = 24


def mean(values):
    return values.reshape(len(values), -1).mean(1)


STATISTICS = {
    "mif_accuracy_drop": mean,
    "lif_aopc": mean,
    "segmentation_ap": lambda values: values[:, 0],
    "completeness_error": mean,
    "degenerate_rate": mean,
    "drift_rank": mean,
}


def scores(count=COUNT, blank=4):
    """Libra is better by about a half in all; the first images have no mask."""
    generator = torch.Generator().manual_seed(0)
    values = {}
    for name, shift in (("plain", 0.0), ("libra", 0.5)):
        drop = torch.rand(count, 3, generator=generator, dtype=torch.float64) / 2 + shift
        precision = torch.rand(count, 21, generator=generator, dtype=torch.float64) / 2 + shift
        precision[:blank] = float("nan")
        error = 1 - shift + torch.rand(count, generator=generator) / 100
        error[10:] = float("nan")
        values |= {
            f"mif_accuracy_drop/{name}": drop,
            f"lif_aopc/{name}": 0.5 - drop / 2,
            f"segmentation_ap/{name}": precision,
            f"completeness_error/{name}": error,
            f"degenerate_rate/{name}": torch.zeros(count),
            f"drift_rank/{name}": torch.rand(count, generator=generator),
        }
    classes = torch.arange(count) % 3 - 1  # of which -1 is none
    correct = (torch.arange(count) % 2).float()
    return ImageScores(tuple((7 * i, -1) for i in range(count)), classes, correct, values)
