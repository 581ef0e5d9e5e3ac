"""Noise to ask a graph with: the same at every call, on every device."""

from __future__ import annotations

import torch
from torch import Tensor

_SALT = 12345
"""Images that somebody draws with a small seed must not be the very noise that moves them: a model
that norms its input would not see it."""


def noise_like(tensor: Tensor, seed: int = 0) -> Tensor:
    """Return standard normal noise in the shape, dtype and device of a tensor."""
    generator = torch.Generator().manual_seed(_SALT + seed)
    return torch.randn(tensor.shape, generator=generator).to(tensor)
