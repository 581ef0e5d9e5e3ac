"""Reads a LightningModule as a token model."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from libragrad_lightning.models import (
    TokenModel,
    UnreadableModelError,
    only_part,
    read_token_model,
    submodule,
)


def read_module(
    module: pl.LightningModule,
    images: Tensor,
    backbone: str | None,
    blocks: Sequence[str] | None = None,
) -> TokenModel:
    """Read a LightningModule as a token model.

    Args:
        module: The module; without a `forward` of its own, the backbone stands for it.
        images: `[B, C, H, W]`, on the device and in the dtype of the module.
        backbone: Path of the submodule in which blocks are looked for, or None.
        blocks: Paths of the blocks, in order, or None to find them.

    Raises:
        MisconfigurationException: If the module cannot be read.
    """
    try:
        forward = _forward(module, backbone)
        return read_token_model(
            module, images, backbone=backbone or "", blocks=blocks, forward=forward
        )
    except UnreadableModelError as error:
        raise MisconfigurationException(str(error)) from error


def floating_dtype(module: nn.Module) -> torch.dtype:
    """Return the dtype in which a module expects images."""
    floating = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(floating, torch.float32)


def _forward(module: pl.LightningModule, backbone: str | None) -> nn.Module:
    if type(module).forward is not pl.LightningModule.forward:
        return module
    return only_part(module) if backbone is None else submodule(module, backbone)
