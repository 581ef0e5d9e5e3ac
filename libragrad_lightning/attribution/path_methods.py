"""Attribution methods that differentiate at other tokens than z0, with several forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from libragrad_lightning.attribution.capture import Captured


@dataclass(frozen=True)
class IntegratedGradients:
    """Integrated Gradients from a baseline of zeros in token space (Sundararajan et al. 2017).

    sum_c z0 * integral over a in [0, 1] of dF/dz at a z0, by Gauss-Legendre quadrature. A
    transformer that begins with a LayerNorm is almost singular at a = 0, so that many steps are
    needed for the sum to approach F(z0) - F(0).

    Attributes:
        steps: Number of forward and backward passes.
    """

    steps: int = 50

    def __call__(self, captured: Captured) -> Tensor:
        """Return the attributions `[B, T]`."""
        points, weights = np.polynomial.legendre.leggauss(self.steps)
        z0 = captured.features[0]
        total = torch.zeros_like(z0)
        for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
            total += 0.5 * weight * captured.passes.gradient_at(0.5 * (1 + point) * z0)
        return (z0 * total).sum(-1)


@dataclass(frozen=True)
class WeightedIntegratedGradients:
    """Integrated Gradients as in the released experiments of Mehri et al. 2025.

    mean over k = 1 ... m of sum_c (a_k z0) dF/dz at a_k z0, with a_k = k / m: the gradient
    multiplies the interpolated tokens, so that early steps count less than in the textbook form.

    Attributes:
        steps: Number of forward and backward passes m.
    """

    steps: int = 50

    def __call__(self, captured: Captured) -> Tensor:
        """Return the attributions `[B, T]`."""
        z0 = captured.features[0]
        total = torch.zeros_like(z0)
        for alpha in _fractions(self.steps):
            total += alpha / self.steps * captured.passes.gradient_at(alpha * z0)
        return (z0 * total).sum(-1)


@dataclass(frozen=True)
class SmoothGrad:
    """SmoothGrad: saliency of the mean gradient over noisy copies of z0 (Smilkov et al. 2017).

    Attributes:
        samples: Number of noisy copies.
        noise: Standard deviation of the noise, as a fraction of the range of each image's z0.
        seed: Seed of the noise, of which an image has its own, in whatever batch.
    """

    samples: int = 50
    noise: float = 0.15
    seed: int = 0

    def __call__(self, captured: Captured) -> Tensor:
        """Return the attributions `[B, T]`, which are not negative."""
        z0 = captured.features[0]
        generators = captured.passes.generators(self.seed)
        spread = self.noise * (z0.amax((1, 2)) - z0.amin((1, 2)))[:, None, None]
        total = torch.zeros_like(z0)
        for _ in range(self.samples):
            noise = torch.stack([torch.randn(z0.shape[1:], generator=g) for g in generators]).to(z0)
            total += captured.passes.gradient_at(z0 + spread * noise)
        return (total / self.samples).norm(dim=-1)


def _fractions(steps: int) -> Iterator[float]:
    return ((k + 1) / steps for k in range(steps))
