"""Attribution methods: small functions from captured material to token attributions `[B, T]`.

All maps are signed; prefix tokens are included and come first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from torch import Tensor

from libragrad_lightning.attribution.capture import Captured

Method: TypeAlias = Callable[[Captured], Tensor]
"""Captured material to token attributions `[B, T]`."""


def input_x_gradient(captured: Captured) -> Tensor:
    """Input x gradient at z0: sum_c z0 * dF/dz0 (IxG; Shrikumar et al. 2016)."""
    return captured.input_x_gradient(0)


def fullgrad(captured: Captured) -> Tensor:
    """FullGrad at z0: input x gradient plus the bias attribution map.

    Complete under `LIBRA` up to the biases that belong to no token (Srinivas & Fleuret 2019;
    Mehri et al. 2025, def. 1).
    """
    return captured.input_x_gradient(0) + captured.token_biases[0]


def fullgrad_plus(captured: Captured) -> Tensor:
    """FullGrad+: input x gradient summed over all levels, plus the biases once.

    sum_l sum_c h_l * dF/dh_l + sum_b b * dF/dy_b (Mehri et al. 2025, section 2.1).
    """
    levels = range(len(captured.features))
    total = sum(captured.input_x_gradient(level) for level in levels)
    return captured.token_biases[0] + total


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "input_x_gradient": input_x_gradient,
        "fullgrad": fullgrad,
        "fullgrad_plus": fullgrad_plus,
    }
)
"""The methods that can be named in a configuration file."""


def attribution_method(method: str | Method) -> Method:
    """Return the method of that name, or the function itself.

    Raises:
        ValueError: If there is no method of that name.
    """
    if callable(method):
        return method
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; `method` takes one of {sorted(METHODS)}.")
    return METHODS[method]
