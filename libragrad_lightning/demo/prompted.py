"""Every scene twice, once for each prompt that is true of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from libragrad_lightning.audit import Samples


def prompted_garments(batch: Mapping[str, Tensor]) -> Samples:
    """Return what an audit explains of B scenes of two garments: one prompt, then the other.

    Args:
        batch: A validation batch of `TwoGarments`.

    Returns:
        2B samples, those of one scene together: the image, one of its prompts as the label, and for
        every prompt the pixels of the garment that it names, `[2B, 42, 48, 48]`.
    """
    labels = torch.stack([batch["label"], batch["other_label"]], 1)
    named = torch.stack([batch["mask"], batch["other_mask"]], 1)
    masks = named.new_zeros(*batch["true"].shape, *named.shape[2:])
    masks[torch.arange(len(labels))[:, None], labels] = named
    images, masks = (t.repeat_interleave(2, 0) for t in (batch["image"], masks))
    return Samples(images, labels.flatten(), masks)
