"""Says of libraries what can be counted or tried without a map, as JSON; see `comparison.py`.

python benchmarks/comparison_libraries.py NAME [NAME ...]
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import pkgutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any

import libragrad_lightning

# isort: split
import lightning as L
import timm
import torch

MODULES = {
    "libragrad-lightning": ("libragrad_lightning", "libragrad_lightning.metrics"),
    "captum": ("captum", "captum.metrics"),
    "quantus": ("quantus", "quantus.metrics"),
    "torchcam": ("torchcam", "torchcam.metrics"),
    "grad-cam": ("pytorch_grad_cam", "pytorch_grad_cam.metrics"),
    "zennit": ("zennit", "zennit.metrics"),
    "lxt": ("lxt", "lxt.metrics"),
    "xplique": ("xplique", "xplique.metrics"),
    "luxonis-train": ("luxonis_train", "luxonis_train.xai"),
}
"""The package of each library, and where its measures of maps would be."""
NEEDED: dict[str, dict[str, Any]] = {"GradCamCallback": {"target_layer": 0}}
"""What a callback cannot be built without."""


@dataclass(frozen=True)
class Looked:
    """What was found of a library.

    Attributes:
        version: The one that was looked at.
        callbacks: Which of Lightning's callbacks it has whose name says that they explain.
        metrics: How many measures of explanations it exports.
        trained: What became of the first of its callbacks in a fit of a stranger's module.
    """

    version: str
    callbacks: list[str]
    metrics: int
    trained: str


class Stranger(L.LightningModule):
    """A LightningModule as anybody writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = timm.create_model("test_vit", img_size=64, num_classes=3)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.network(images), labels)

    validation_step = training_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    """Import what can be imported of a package."""
    yield package
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.", lambda _: None):
        if not found.name.endswith("__main__"):
            with contextlib.suppress(BaseException):
                yield importlib.import_module(found.name)


def _callbacks(package: ModuleType) -> list[type[L.Callback]]:
    words = ("cam", "audit", "explain", "attribution", "saliency", "xai")
    found = {
        value
        for module in _modules(package)
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, L.Callback) and value.__module__.startswith(package.__name__)
    }
    named = [value for value in found if any(word in value.__name__.lower() for word in words)]
    return sorted(
        (value for value in named if not value.__name__.endswith("Hooks")), key=lambda v: v.__name__
    )


def _metrics(name: str) -> int:
    """Count the public classes and functions of a module of metrics, without its base classes."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return 0
    if exported := getattr(module, "__all__", None):
        return len(exported)
    root = name.partition(".")[0]
    found = {
        value
        for part in (_modules(module) if hasattr(module, "__path__") else [module])
        for key, value in inspect.getmembers(part)
        if (inspect.isclass(value) or inspect.isfunction(value))
        and not key.startswith("_")
        and "Base" not in key
        and not inspect.isabstract(value)
        and value.__module__.startswith(f"{root}.metrics")
    }
    return len(found)


def trained(callback: type[L.Callback]) -> str:
    """Put a callback into a fit, with its defaults."""
    rows = torch.utils.data.TensorDataset(torch.randn(8, 3, 64, 64), torch.arange(8) % 3)
    loader = torch.utils.data.DataLoader(rows, batch_size=4)
    needed = NEEDED.get(callback.__name__, {})
    try:
        with tempfile.TemporaryDirectory() as folder:
            trainer = L.Trainer(
                max_epochs=1,
                callbacks=[callback(**needed)],
                default_root_dir=folder,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(Stranger(), loader, loader)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    return "works"


def look(name: str) -> Looked | str:
    """Look at a library; the error, if it cannot be imported."""
    package, metrics = MODULES[name]
    try:
        module = importlib.import_module(package)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    callbacks = _callbacks(module)
    ours = name == "libragrad-lightning"
    return Looked(
        libragrad_lightning.__version__ if ours else version(name),
        [callback.__name__ for callback in callbacks],
        _metrics(metrics),
        trained(callbacks[0]) if callbacks else "has none",
    )


def main() -> None:
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()):
        found = {name: look(name) for name in sys.argv[1:]}
    print(json.dumps({n: v if isinstance(v, str) else asdict(v) for n, v in found.items()}))


if __name__ == "__main__":
    main()
