"""What batched average precision costs, as a ratio to scikit-learn image by image in the same run.

    python benchmarks/segmentation_ap.py [--images 16] [--side 224] [--rounds 5] [--device cpu]

Rounds alternate between the contestants; the median is reported. Maps are normal noise without
ties around a square object of a fifth of the image, so that nothing about them helps the sort. Maps
within (-2, 2) are the usual case: attributions of single pixels are small.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from tqdm import tqdm

from libragrad_lightning.metrics.functional import segmentation_average_precision


def scikit_learn(attribution: Tensor, mask: Tensor) -> np.ndarray:
    """Return the average precision of each image, [B]."""
    pairs = zip(attribution.flatten(1).numpy(), mask.flatten(1).numpy(), strict=True)
    return np.array([average_precision_score(positive, scores) for scores, positive in pairs])


def by_hand(attribution: Tensor, mask: Tensor) -> np.ndarray:
    """Return the same by an argsort and a cumulative sum for each image, [B]."""
    found = []
    for scores, positive in zip(
        attribution.flatten(1).numpy(), mask.flatten(1).numpy(), strict=True
    ):
        order = np.argsort(-scores)
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
        hits = np.cumsum(positive[order])[ends]
        found.append((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / hits[-1])
    return np.array(found)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def example(images: int, side: int) -> tuple[Tensor, Tensor]:
    """Return maps within (-2, 2) and masks, [B, H, W]."""
    generator = torch.Generator().manual_seed(0)
    attribution = torch.randn(images, side, side, generator=generator) / 8
    mask = torch.zeros(images, side, side, dtype=torch.bool)
    edge = round(side * 0.2**0.5)
    start = (side - edge) // 2
    mask[:, start : start + edge, start : start + edge] = True
    return attribution + 0.1 * mask, mask


def main() -> None:
    """Print one row per kind of map."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    small, mask = example(arguments.images, arguments.side)
    ties = (32 * small).round()
    kinds = {
        "float32 within (-2, 2)": small,
        "float32": 100 * small,
        "float64": small.double(),
        "float32 with ties": ties,
        "float64 with ties": ties.double(),
    }
    print(f"{arguments.images} images of {arguments.side}², {torch.get_num_threads()} thread(s)")
    for name, maps in kinds.items():
        on_device = maps.to(device), mask.to(device)
        found = segmentation_average_precision(*on_device).cpu()
        for others in (scikit_learn(maps, mask), by_hand(maps, mask)):
            np.testing.assert_allclose(found, others, rtol=0, atol=1e-12)
        times = [
            (
                seconds(lambda m=maps: scikit_learn(m, mask), device),
                seconds(lambda m=maps: by_hand(m, mask), device),
                seconds(lambda pair=on_device: segmentation_average_precision(*pair), device),
            )
            for _ in tqdm(range(arguments.rounds), name, leave=False)
        ]
        theirs, hand, ours = (statistics.median(column) for column in zip(*times, strict=True))
        per_image = 1e3 / arguments.images
        print(
            f"  {theirs / ours:5.1f} x  {name}: scikit-learn {theirs * per_image:.2f} ms,"
            f" numpy by hand {hand * per_image:.2f} ms, ours {ours * per_image:.2f} ms per image"
        )


if __name__ == "__main__":
    main()
