"""Measures maps with Quantus: the mean over the curve of PixelFlipping; see `comparison.py`.

python benchmarks/comparison_flipping.py FOLDER METHOD [METHOD ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

import libragrad_lightning  # noqa: F401  (first: it mends a torchvision that does not fit)

# isort: split
import numpy as np
import quantus
import torch

from comparison_model import trained

STEPS = 8
"""Quantus wants the number of pixels to be a multiple of it.

Steps are averaged here, as its own area asks for a function that NumPy has no longer.
"""


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    material = torch.load(folder / "material.pt", weights_only=True)
    pooled = torch.load(folder / "pooled.pt", weights_only=True)
    images, labels = material["images"], material["labels"]
    model, areas = trained(folder / "weights.pt"), {}
    side = images.shape[-1]
    for name in names:
        maps = torch.nn.functional.interpolate(pooled[name][:, None], size=(side, side))
        metric = quantus.PixelFlipping(
            features_in_step=side**2 // STEPS,
            perturb_baseline="black",
            disable_warnings=True,
        )
        found = metric(
            model=model,
            x_batch=images.numpy(),
            y_batch=labels.numpy(),
            a_batch=maps.double().numpy(),
            device="cpu",
            softmax=True,
            batch_size=len(images),
        )
        areas[name] = float(np.mean(found))
    torch.save(areas, folder / "flipping.pt")


if __name__ == "__main__":
    main()
