"""Attribution methods: small functions from captured material to token attributions `[B, T]`.

All maps are signed; prefix tokens are included and come first. h_l and g_l are the features and
gradients of level l = 0 ... L - 1, A_l and dA_l the attention and its gradient. Formulas as in the
experiments of Mehri et al. 2025, section 4. Where levels differ in their grids, maps of later ones
are spread over the grid of the first, sums preserved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from torch import Tensor

from libragrad_lightning.attribution import (
    attention_methods,
    gradient_methods,
    patching_methods,
    path_methods,
    token_methods,
    tokentm,
)
from libragrad_lightning.attribution.capture import Captured
from libragrad_lightning.lookup import named

Method: TypeAlias = Callable[[Captured], Tensor]
"""Captured material to token attributions `[B, T]`."""

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "attcat": attention_methods.attcat,
        "attention_rollout": attention_methods.attention_rollout,
        "caap": patching_methods.ActivationPatching(),
        "fullgrad": gradient_methods.fullgrad,
        "fullgrad_over_levels": gradient_methods.fullgrad_over_levels,
        "fullgrad_plus": gradient_methods.fullgrad_plus,
        "fullgrad_skip_plus": gradient_methods.fullgrad_skip_plus,
        "genatt": attention_methods.genatt,
        "grad_eclip": token_methods.grad_eclip,
        "gradcam": gradient_methods.gradcam,
        "gradcam_plus": gradient_methods.gradcam_plus,
        "gradcam_skip_plus": gradient_methods.gradcam_skip_plus,
        "gradsam": attention_methods.gradsam,
        "hirescam": gradient_methods.hirescam,
        "input_x_gradient": gradient_methods.input_x_gradient,
        "input_x_gradient_mean": gradient_methods.input_x_gradient_mean,
        "input_x_gradient_plus": gradient_methods.input_x_gradient_plus,
        "input_x_gradient_skip_plus": gradient_methods.input_x_gradient_skip_plus,
        "integrated_gradients": path_methods.IntegratedGradients(),
        "integrated_gradients_weighted": path_methods.WeightedIntegratedGradients(),
        "legrad": token_methods.legrad,
        "maskclip": token_methods.maskclip,
        "random": gradient_methods.random,
        "raw_attention": attention_methods.raw_attention,
        "saliency": gradient_methods.saliency,
        "smoothgrad": path_methods.SmoothGrad(),
        "tokentm": tokentm.tokentm,
        "xgradcam": gradient_methods.xgradcam,
        "xgradcam_plus": gradient_methods.xgradcam_plus,
        "xgradcam_skip_plus": gradient_methods.xgradcam_skip_plus,
    }
)
"""The methods that can be named in a configuration file."""

_WITH_BIASES = frozenset(name for name in METHODS if name.startswith("fullgrad"))


_OF_PRODUCTS = frozenset(
    name for name in METHODS if name.startswith(("fullgrad", "input_x_gradient"))
) | {"caap", "hirescam", "random"}
_OF_THE_GRAPH = frozenset({"legrad"})


def needs_gradients(method: Method) -> bool:
    """Return whether a method reads gradients of levels, not only input x gradient."""
    return _name_of(method) not in _OF_PRODUCTS


def needs_graph(method: Method) -> bool:
    """Return whether a method may differentiate the recorded forward pass again."""
    name = _name_of(method)
    return name is None or name in _OF_THE_GRAPH


def needs_biases(method: Method) -> bool:
    """Return whether what biases contribute must be gathered for a method.

    They tell attention whether tokens keep their order in a block; and a function of a user's may
    read whatever is there.
    """
    name = _name_of(method)
    return name is None or name in _WITH_BIASES or attention_methods.needs_attention(method)


def _name_of(method: Method) -> str | None:
    """Return the name of a method, None if it is a user's own."""
    return next((name for name, known in METHODS.items() if known is method), None)


def attribution_method(method: str | Method) -> Method:
    """Return the method of that name, or the function itself.

    Raises:
        ValueError: If there is no method of that name.
    """
    if callable(method):
        return method
    return named(METHODS, method, "method")
