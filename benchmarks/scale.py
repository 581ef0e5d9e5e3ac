"""Measures what an audit costs in several processes, and what they send each other for it.

    python benchmarks/scale.py --ranks 1 2 4 8 --images 256

Every number of processes (gloo) fits a tiny transformer for two epochs, with the audit and without
it; the second audit is measured, whose model has been read before. Seconds are of processor time,
which a machine with fewer cores than processes has for all of them; communication is counted and
not timed, since no machine's memory tells what a network takes. The model of the cost is in
docs/scale.md; this command prints the table with which it is compared.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import libragrad_lightning  # noqa: F401  (repairs torchvision)

# isort: split
import lightning as L
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from large_probe_sets import Classifier, Images
from libragrad_lightning.callbacks import LibraGradAudit

_EPOCHS = 3
_OBJECTS = ("all_gather_object", "broadcast_object_list")
_TENSORS = ("all_gather", "all_reduce", "broadcast", "barrier")


@dataclass
class Cost:
    """What a process has spent so far.

    Attributes:
        seconds: Processor time.
        calls: Collective calls.
        sent: Bytes that it gave to them.
        peak: Its largest resident memory so far, MiB.
    """

    seconds: float = 0.0
    calls: int = 0
    sent: int = 0
    peak: float = 0.0

    def since(self, earlier: Cost) -> Cost:
        """Return what was spent since then; the peak stays what it is."""
        return Cost(
            self.seconds - earlier.seconds,
            self.calls - earlier.calls,
            self.sent - earlier.sent,
            self.peak,
        )


class Trained(Classifier):
    """The classifier, trained, which tells what each validation has cost this process.

    Args:
        folder: Where the costs are written.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.spent, self.found = folder, Cost(), list[Cost]()
        self.begun = Cost()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)

    def on_fit_start(self) -> None:
        for name in (*_OBJECTS, *_TENSORS):
            setattr(dist, name, self._counted(getattr(dist, name), name in _OBJECTS))

    def on_validation_start(self) -> None:
        self.begun = self._now()

    def on_train_epoch_end(self) -> None:
        self.found.append(self._now().since(self.begun))

    def on_fit_end(self) -> None:
        found = json.dumps([asdict(cost) for cost in self.found])
        (self.folder / f"rank_{self.global_rank}.json").write_text(found)

    def _now(self) -> Cost:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        peak = usage.ru_maxrss / 1024
        return Cost(time.process_time(), self.spent.calls, self.spent.sent, peak)

    def _counted(self, call: Callable[..., Any], takes_object: bool) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.spent.calls += 1
            given = args[1] if len(args) > 1 else args[0] if args else None
            if takes_object:
                self.spent.sent += len(pickle.dumps(given))
            elif isinstance(given, Tensor):
                self.spent.sent += given.nbytes
            return call(*args, **kwargs)

        return counted


def fit(folder: Path, ranks: int, images: int, audited: bool) -> None:
    """Fit in so many processes of which each writes its costs."""
    torch.set_num_threads(1)
    L.seed_everything(0, verbose=False)
    audit = LibraGradAudit(max_samples=images, print_summary=False, num_images=0)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp_fork" if ranks > 1 else "auto",
        max_epochs=_EPOCHS,
        logger=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=[audit] if audited else [],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    data = DataLoader(Images(64), 8), DataLoader(Images(images), 8)
    trainer.fit(Trained(folder), *data)


def measured(ranks: int, images: int, audited: bool) -> Cost:
    """Return the largest costs of a validation among the processes, after the first one."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--ranks", str(ranks), "--images", str(images)]
        command += ["--one", folder, *([] if audited else ["--without"])]
        subprocess.run(command, check=True, capture_output=True)
        files = sorted(Path(folder).glob("rank_*.json"))
        assert len(files) == ranks
        of_ranks = [[Cost(**cost) for cost in json.loads(file.read_text())] for file in files]
    # The cheapest of the later ones: what else a machine does adds, and takes nothing away.
    each = [min(costs[1:], key=lambda cost: cost.seconds) for costs in of_ranks]
    return Cost(
        max(cost.seconds for cost in each),
        max(cost.calls for cost in each),
        max(cost.sent for cost in each),
        max(cost.peak for cost in each),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--images", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--one", type=Path, help="fit here, and write costs into a folder")
    parser.add_argument("--without", action="store_true", help="without the audit")
    given = parser.parse_args()
    if given.one:
        fit(given.one, given.ranks[0], given.images[0], not given.without)
        return
    columns = ("ranks", "images", "audit, CPU s", "collectives", "sent", "received", "peak MiB")
    print(f"| {' | '.join(columns)} |")
    print("|--:" * len(columns) + "|")
    for images in given.images:
        for ranks in given.ranks:
            bare, audited = (measured(ranks, images, flag) for flag in (False, True))
            cost = audited.since(bare)
            received = cost.sent * (ranks - 1)
            cells = f"{cost.seconds:.2f} | {cost.calls} | {cost.sent} | {received}"
            print(f"| {ranks} | {images} | {cells} | {audited.peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
