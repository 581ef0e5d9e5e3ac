"""Explains with the libraries of one environment; `comparison.py` starts it there.

    python benchmarks/comparison_worker.py FOLDER METHOD [METHOD ...]

Every method has a process of its own, so that what one changes is not seen by another.
"""

from __future__ import annotations

import ast
import inspect
import multiprocessing
import re
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import libragrad_lightning  # first: it mends a torchvision that does not fit

# isort: split
import timm
import torch
from torch import Tensor, nn

from comparison_model import trained
from comparison_peers import METHODS, OURS, Method

BATCH = 16
_WATCHED = (nn.LayerNorm, nn.GELU, nn.MultiheadAttention, nn.Linear, nn.Conv2d)


def _version(method: Method) -> str:
    ours = method.library == OURS
    return libragrad_lightning.__version__ if ours else version(method.library)


def lines_written(method: Method) -> int:
    """Return the number of lines in the body of a method's function, without empty ones."""
    function = ast.parse(inspect.getsource(method.explain)).body[0]
    assert isinstance(function, ast.FunctionDef)
    body = "\n".join(ast.unparse(statement) for statement in function.body)
    return len([line for line in body.splitlines() if line.strip()])


def _memory(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.findall(rf"^{field}:\s+(\d+)", status, re.MULTILINE)[0])


def explained(method: Method, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Explain all images, after the first two; return maps, sums, seconds and peak MiB."""
    method.explain(model, images[:2], labels[:2])
    before, start = _memory("VmRSS"), time.process_time()
    parts = [
        method.explain(model, images[n : n + BATCH], labels[n : n + BATCH])
        for n in range(0, len(images), BATCH)
    ]
    seconds = time.process_time() - start
    sums = [total for _, total in parts if total is not None]
    return {
        "maps": torch.cat([part for part, _ in parts]).detach().float(),
        "sums": torch.cat(sums).detach() if sums else None,
        "seconds": seconds / len(images),
        "memory": max(_memory("VmHWM") - before, 0) / 1024,
    }


def _hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def traces(method: Method, model: nn.Module, images: Tensor, labels: Tensor) -> str:
    """Return what a method leaves behind in the model, and in the classes of torch."""
    with torch.no_grad():
        before = model(images)
    hooks, classes = _hooks(model), [kind.forward for kind in _WATCHED]
    method.explain(model, images, labels)
    with torch.no_grad():
        same = torch.equal(before, model(images))
    left = {
        "other outputs": not same,
        "hooks": _hooks(model) != hooks,
        "gradients in the parameters": any(p.grad is not None for p in model.parameters()),
        "other classes in `torch.nn`": classes != [kind.forward for kind in _WATCHED],
        "no gradients for the parameters": not all(p.requires_grad for p in model.parameters()),
        "training mode": model.training,
    }
    return ", ".join(what for what, is_left in left.items() if is_left) or "nothing"


def bfloat16(method: Method, model: nn.Module, images: Tensor, labels: Tensor) -> str:
    """Try half-precision weights."""
    return _works(method, model.bfloat16(), images.bfloat16(), labels)


def swin(method: Method, model: nn.Module, images: Tensor, labels: Tensor) -> str:
    """Try the same lines on a hierarchical transformer, images without a graph."""
    other = timm.create_model("swin_tiny_patch4_window7_224", img_size=112, num_classes=20)
    return _works(method, other.eval(), images, labels)


def convnext(method: Method, model: nn.Module, images: Tensor, labels: Tensor) -> str:
    """Try the same lines on a convolutional network."""
    return _works(method, timm.create_model("convnext_atto", num_classes=20).eval(), images, labels)


def numbers(method: Method, model: nn.Module, images: Tensor, labels: Tensor) -> str:
    """Try a network on rows of seven numbers."""
    network = nn.Sequential(nn.Linear(7, 9), nn.GELU(), nn.Linear(9, 20))
    rows = images.flatten(1)[:, :7]
    if method.library == "captum":
        from captum.attr import InputXGradient

        found = InputXGradient(network).attribute(rows, target=labels)
        return "yes" if found.shape == rows.shape else "no"
    return _works(method, network, rows, labels)


def _works(method: Method, model: nn.Module, images: Tensor, labels: Tensor) -> str:
    maps, _ = method.explain(model, images, labels)
    flat = maps.float().flatten(1)
    return "yes" if flat.isfinite().all() and (flat.std(1) > 0).all() else "no: constant or NaN"


TRIALS: dict[str, Callable[[Method, nn.Module, Tensor, Tensor], str]] = {
    trial.__name__: trial for trial in (traces, bfloat16, swin, convnext, numbers)
}


def _child(run: Callable[[], Any], path: Path) -> None:
    """Run, and write what it returns, or the last line of what it raises."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        torch.save(run(), path)
    except Exception:
        last = traceback.format_exc().strip().splitlines()[-1]
        torch.save(f"no: {last[:160]}", path)


def apart(run: Callable[[], Any], path: Path) -> Any:
    """Return what a function returns in a process of its own."""
    path.unlink(missing_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(run, path))
    process.start()
    process.join()
    if not path.exists():
        return f"no: the process ended with {process.exitcode}"
    return torch.load(path, weights_only=False)


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    material = torch.load(folder / "material.pt", weights_only=True)
    images, labels = material["images"], material["labels"]
    model = trained(folder / "weights.pt")
    for name in names:
        method = METHODS[name]
        part = folder / "part.pt"
        few = (method, model, images[:2], labels[:2])
        result = {"version": _version(method), "lines": lines_written(method)}
        result["explained"] = apart(partial(explained, method, model, images, labels), part)
        result |= {name: apart(partial(trial, *few), part) for name, trial in TRIALS.items()}
        torch.save(result, folder / f"{method.explain.__name__}.pt")


if __name__ == "__main__":
    main()
