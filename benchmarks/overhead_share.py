"""What share of each epoch's other time the hooks of an audit take under `max_overhead`.

    python benchmarks/overhead_share.py [--model tiny] [--batches 400] [--batch 32] [--epochs 4]
        [--limit 0.05]

Every hook is timed from outside, on the wall clock. `tiny` is a transformer of four blocks on
images of 32 x 32 pixels; other names are those of timm, at 224 x 224.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from timm_models import create_model

# isort: split
import lightning as L

from libragrad_lightning.callbacks import LibraGradAudit, Schedule

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 4}


class Classifier(L.LightningModule):
    """Trains a model of timm."""

    def __init__(self, name: str) -> None:
        super().__init__()
        is_tiny = name == "tiny"
        name, settings = ("vit_tiny_patch16_224", TINY) if is_tiny else (name, {})
        self.net = create_model(name, num_classes=4, **settings)

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Return the loss."""
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """Log the loss."""
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain gradient descent."""
        return torch.optim.SGD(self.parameters(), 1e-3)


class Stopwatch:
    """Adds up what hooks take, each of them once."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    def timed(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Return a hook whose time is added."""

        @wraps(hook)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            start = time.perf_counter()
            try:
                return hook(*args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.perf_counter() - start

        return timed


class Epochs(L.Callback):
    """Prints a row for each epoch."""

    def __init__(self, audit: LibraGradAudit, watch: Stopwatch) -> None:
        self._audit, self._watch, self._start = audit, watch, 0.0
        self._hooks = self._others = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._start, self._watch.seconds = time.perf_counter(), 0.0

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Print what this epoch took."""
        whole, hooks = time.perf_counter() - self._start, self._watch.seconds
        self._hooks, self._others = self._hooks + hooks, self._others + whole - hooks
        found = [r for r in self._audit.history if r.epoch == trainer.current_epoch]
        audit = f"{found[-1].samples} | {found[-1].seconds:.2f} s" if found else "postponed |"
        print(
            f"| {trainer.current_epoch} | {whole:.1f} s | {hooks / (whole - hooks):.3f} "
            f"| {self._hooks / self._others:.3f} | {audit} |",
            flush=True,
        )


def loader(count: int, side: int, batch: int) -> DataLoader:
    """Return random images with labels and masks."""
    images, labels = torch.randn(count, 3, side, side), torch.randint(0, 4, (count,))
    masks = torch.rand(count, side, side) > 0.5
    return DataLoader(TensorDataset(images, labels, masks), batch)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--limit", type=float, default=0.05)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    watch, side = Stopwatch(), 32 if arguments.model == "tiny" else 224
    hooks = {n: watch.timed(getattr(LibraGradAudit, n)) for n in dir(LibraGradAudit) if "on_" in n}
    timed = type("Timed", (LibraGradAudit,), {n: h for n, h in hooks.items() if n[:3] == "on_"})
    audit = timed(schedule=Schedule(max_overhead=arguments.limit), print_summary=False)
    trainer = L.Trainer(
        max_epochs=arguments.epochs,
        callbacks=[Epochs(audit, watch), audit],
        accelerator="cpu",
        default_root_dir=tempfile.mkdtemp(),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    print("| epoch | took | share of the hooks | so far | images | audit/seconds |")
    print("|--:|--:|--:|--:|--:|--:|")
    train = loader(arguments.batches * arguments.batch, side, arguments.batch)
    trainer.fit(Classifier(arguments.model), train, loader(64, side, arguments.batch))


if __name__ == "__main__":
    main()
