"""Eager activations, of several operations, beside the functions that they are."""

import math

import torch
import torch.nn.functional as F

RATE = math.sqrt(2 / math.pi)


def gelu_tanh(x):
    return F.gelu(x, approximate="tanh")


def quick_gelu(x):
    return F.silu(1.702 * x) / 1.702


def softplus_of(x):
    return torch.log(1 + torch.exp(x))


def in_places(x):
    return x * (x + 3).clamp_(0.0, 6.0).div_(6.0)


def squared(x):
    return F.relu(x) ** 2


# What is eager, and what it is.
TWINS = {
    "gelu_new": (
        lambda x: 0.5 * x * (1.0 + torch.tanh(RATE * (x + 0.044715 * torch.pow(x, 3.0)))),
        gelu_tanh,
    ),
    "gelu_fast": (
        lambda x: 0.5 * x * (1.0 + torch.tanh(x * RATE * (1.0 + 0.044715 * x * x))),
        gelu_tanh,
    ),
    "gelu_times_itself": (
        lambda x: (torch.tanh(RATE * (x + 0.044715 * x * x * x)) + 1) * (x * 0.5),
        gelu_tanh,
    ),
    "gelu_expanded": (
        lambda x: 0.5 * x + 0.5 * (x * torch.tanh(RATE * (x + 0.044715 * x**3))),
        gelu_tanh,
    ),
    "gelu_halves": (
        lambda x: x * 0.5 * (1 + torch.tanh(RATE * x * (1 + 0.044715 * x.square()))),
        gelu_tanh,
    ),
    "gelu_by_sigmoid": (
        lambda x: x * torch.sigmoid(2 * RATE * (x + 0.044715 * x * (x * x))),
        gelu_tanh,
    ),
    "gelu_erf": (lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))), F.gelu),
    "gelu_erf_turned": (lambda x: (torch.erf(x * 2**-0.5) + 1) / 2 * x, F.gelu),
    "gelu_erfc": (lambda x: 0.5 * x * torch.erfc(-x * 2**-0.5), F.gelu),
    "gelu_ndtr": (lambda x: x * torch.special.ndtr(x), F.gelu),
    "silu": (lambda x: x * torch.sigmoid(x), F.silu),
    "silu_quotient": (lambda x: x / (1 + torch.exp(-x)), F.silu),
    "silu_reciprocal": (lambda x: x * (1 / (1 + (-x).exp())), F.silu),
    "silu_two_factors": (lambda x: x * torch.exp(x) / (torch.exp(x) + 1), F.silu),
    "silu_by_tanh": (lambda x: x * (torch.tanh(x / 2) + 1) * 0.5, F.silu),
    "quick_gelu": (lambda x: x * torch.sigmoid(1.702 * x), quick_gelu),
    "hardswish": (lambda x: x * F.relu6(x + 3) / 6, F.hardswish),
    "hardswish_gate_first": (lambda x: F.relu6(x + 3.0).div(6.0).mul(x), F.hardswish),
    "hardswish_clamp": (lambda x: x * (x + 3).clamp(0, 6) / 6, F.hardswish),
    "hardswish_in_place": (in_places, F.hardswish),
    "hardswish_hardtanh": (lambda x: (x / 6) * F.hardtanh(x + 3, 0, 6), F.hardswish),
    "hardswish_hardsigmoid": (lambda x: F.hardsigmoid(x) * x, F.hardswish),
    "hardswish_minimum": (
        lambda x: x * torch.minimum(torch.relu(x + 3), torch.tensor(6.0).double()) / 6,
        F.hardswish,
    ),
    "hardswish_where": (
        lambda x: torch.where(x > 3, x, torch.where(x < -3, 0.0, x * (x + 3) / 6)),
        F.hardswish,
    ),
    "mish": (lambda x: x * torch.tanh(F.softplus(x)), F.mish),
    "mish_log1p": (lambda x: x * torch.tanh(torch.log1p(torch.exp(x))), F.mish),
    "mish_log": (lambda x: x * torch.tanh(softplus_of(x)), F.mish),
    "mish_logaddexp": (lambda x: torch.logaddexp(x, x.new_zeros(())).tanh() * x, F.mish),
    "mish_squares": (lambda x: x * (1 - 2 / (1 + (1 + x.exp()) ** 2)), F.mish),
    "squared_relu": (lambda x: F.relu(x) * F.relu(x), squared),
    "squared_relu_half": (lambda x: x * F.relu(x), squared),
    "squared_relu_square": (lambda x: F.relu(x).square(), squared),
    "square": (lambda x: x * x, lambda x: x**2),
    "signed_square": (lambda x: x * x.abs(), lambda x: x.sign().detach() * x**2),
    "softsign": (lambda x: x / (1 + abs(x)), F.softsign),
    "hardtanh": (lambda x: x.clamp(-1, 1), F.hardtanh),
    "tanhshrink": (lambda x: x - torch.tanh(x), F.tanhshrink),
    "elu": (lambda x: torch.where(x > 0, x, torch.expm1(x)), F.elu),
    "elu_of_parts": (lambda x: F.relu(x) + torch.expm1(-F.relu(-x)), F.elu),
    "leaky_relu": (lambda x: torch.where(x > 0, x, 0.01 * x), F.leaky_relu),
}
HOMOGENEOUS = {name for name in TWINS if "square" in name} - {"mish_squares"}
"""Products that stay products: Euler's theorem gives them what sharing among factors gives."""
