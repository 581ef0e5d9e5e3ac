"""Reads the weights of a model from a file, whatever they are wrapped in."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

_WRAPPERS = ("state_dict_ema", "state_dict", "model_state_dict", "model_ema", "model")
"""What trainers call the weights within a checkpoint."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights in a checkpoint of Lightning, timm or torch, or a file of safetensors.

    Raises:
        ValueError: If the file is missing, or holds no weights, or none without code.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path}; change checkpoint.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path} holds no weights that can be read without running code "
            f"({str(error).splitlines()[0]}); save the model's `state_dict()` with `torch.save` "
            "and pass that as checkpoint."
        ) from error
    for name in ("", *_WRAPPERS):
        found = content.get(name) if name and isinstance(content, Mapping) else content
        if isinstance(found, Mapping) and found and _are_weights(found):
            return dict(found)
    raise ValueError(
        f"{path} holds no weights by their names; save the model's `state_dict()` with "
        "`torch.save` and pass that as checkpoint."
    )


def weights_of(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a model out of those of a module that holds it, by the model's names.

    Raises:
        ValueError: If the model is not in there, all of it and with no layers beside its own.
    """
    wanted = model.state_dict()
    prefix = _prefix(list(wanted), weights)
    found = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    missing = [name for name in wanted if name not in found]
    surplus = [name for name in found if name not in wanted]
    for names, what in ((missing, "has no"), (surplus, "also holds")):
        if names:
            raise ValueError(
                f"The checkpoint is not one of this model: it {what} {prefix}{names[0]}; change "
                "model or checkpoint, or pass the model_kwargs that it was made with."
            )
    return found


def _prefix(names: list[str], weights: Mapping[str, Tensor]) -> str:
    """Return what stands before the names of most of a model's weights."""
    prefixes = {key.removesuffix(names[0]) for key in weights if key.endswith(names[0])}
    hits = {p: sum(p + name in weights for name in names) for p in prefixes}
    return max(sorted(hits), key=lambda p: hits[p], default="")


def _are_weights(values: Mapping[Any, Any]) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in values.items())
