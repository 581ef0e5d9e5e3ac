"""What has been read of a model, kept from one audit to the next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from libragrad_lightning.audit.config import AuditConfig
from libragrad_lightning.models import TokenModel, read_token_model
from libragrad_lightning.perturbation.rows import FastestRows


@dataclass
class Readings:
    """Models as they were read, by the sizes of images.

    A module that has other submodules than when it was read is read again, and so is one whose
    tokens could not be located, as while its weights are not finite.

    Attributes:
        fastest_rows: How many perturbed images are run at once, by the sizes of images.
    """

    fastest_rows: defaultdict[torch.Size, FastestRows] = field(
        default_factory=lambda: defaultdict(FastestRows)
    )
    _kept: dict[torch.Size, tuple[tuple[nn.Module, ...], TokenModel]] = field(default_factory=dict)

    def of(
        self,
        module: nn.Module,
        images: Tensor,
        forward: Callable[[Tensor], Any],
        config: AuditConfig,
    ) -> TokenModel:
        """Return the model as it is read for images of a size.

        Args:
            module: The module that is audited.
            images: Images `[B, C, H, W]`.
            forward: Images to scores.
            config: Names the backbone, or the blocks.

        Raises:
            UnreadableModelError: If the model cannot be read.
        """
        modules, size = tuple(module.modules()), images.shape[1:]
        kept, model = self._kept.get(size, ((), None))
        same = len(kept) == len(modules) and all(map(_is_same, kept, modules))
        if model is not None and same:
            return replace(model, forward=forward)
        model = read_token_model(
            module, images, backbone=config.backbone or "", blocks=config.blocks, forward=forward
        )
        model.placement(images)  # Here, where memory may run out without a chunk being at fault.
        self._kept.pop(size, None)
        if model.is_located:
            self._kept[size] = modules, model
        return model


def _is_same(one: nn.Module, other: nn.Module) -> bool:
    return one is other
