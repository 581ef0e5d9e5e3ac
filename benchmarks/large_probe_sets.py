"""Measures the memory of an audit of many images: `trainer.validate` of tiny images.

Every size is measured in a process of its own, whose peak resident memory is what the system says
of it at the end. What processes would gather is the size of the audit's result, pickled.

    python benchmarks/large_probe_sets.py 2000 20000
"""

from __future__ import annotations

import argparse
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import libragrad_lightning  # noqa: F401  (repairs torchvision)

# isort: split
import lightning as L
import timm
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from libragrad_lightning.callbacks import Deletion, LibraGradAudit
from libragrad_lightning.monitoring import session

MODEL = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


class Images(Dataset[tuple[Tensor, int, Tensor]]):
    """Images that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, int, Tensor]:
        generator = torch.Generator().manual_seed(i)
        mask = torch.zeros(32, 32, dtype=torch.bool)
        mask[8:24, 8:24] = True
        return torch.randn(3, 32, 32, generator=generator), i % 4, mask


class Classifier(L.LightningModule):
    """A vision transformer of one block."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("vit_tiny_patch16_224", num_classes=4, **MODEL)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        F.cross_entropy(self.net(batch[0]), batch[1])


def measure(count: int, audited: bool) -> None:
    """Validate so many images, and print MiB, seconds, and bytes that would be gathered."""
    torch.set_num_threads(1)
    L.seed_everything(0, verbose=False)
    sizes: list[int] = []
    gathered = session.gathered

    def weighed(item: Any) -> Any:
        sizes.append(len(pickle.dumps(item)))
        return gathered(item)

    session.gathered = weighed
    audit = LibraGradAudit(max_samples=count, deletion=Deletion(levels=(0.5,)), print_summary=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu",
            logger=False,
            default_root_dir=folder,
            callbacks=[audit] if audited else [],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        begin = time.perf_counter()
        trainer.validate(Classifier(), DataLoader(Images(count), 50), verbose=False)
        seconds = time.perf_counter() - begin
    if audited:
        assert audit.history[0].samples == count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{peak:.0f} {seconds:.0f} {max(sizes, default=0)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", type=int, nargs="*", default=[2000, 20000])
    parser.add_argument("--one", action="store_true", help="measure here, and print numbers alone")
    parser.add_argument("--without", action="store_true", help="without the audit")
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.counts[0], not arguments.without)
        return
    print("| images | audit | peak MiB | seconds | bytes gathered |\n|--:|---|--:|--:|--:|")
    for count in arguments.counts:
        for flags in ([], ["--without"]):
            command = [sys.executable, Path(__file__), "--one", str(count), *flags]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peak, seconds, size = output.split()[-3:]
            audited = "no" if flags else "yes"
            print(f"| {count} | {audited} | {peak} | {seconds} | {size} |", flush=True)


if __name__ == "__main__":
    main()
