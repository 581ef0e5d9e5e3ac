"""Operands that the graph records, and constants that it does not, add up in every mixture."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from backward_cases import fullgrad_sum, leaves

from libragrad_lightning.backward import ConstantObserver

SHAPES = {
    "linear": ((4, 6), (6, 6), (6,)),
    "linear of rows": ((2, 4, 6), (6, 6), (6,)),
    "linear of one row": ((6,), (6, 6), (6,)),
    "convolution": ((2, 6, 5), (6, 6, 3), (6,)),
    "layer norm": ((2, 4, 6), (6,), (6,)),
    "group norm": ((2, 6, 4), (6,), (6,)),
    "instance norm": ((2, 6, 4), (6,), (6,)),
    "batch norm": ((2, 6, 4), (6,), (6,)),
    "matrix product": ((4, 6), (6, 6), (6,)),
    "batched product": ((2, 4, 6), (2, 6, 6), (6,)),
}
MEAN, VARIANCE = torch.linspace(-1, 1, 6).double(), torch.linspace(1, 2, 6).double()
FUNCTIONS = {
    "linear": F.linear,
    "linear of rows": F.linear,
    "linear of one row": F.linear,
    "convolution": lambda x, w, b: F.conv1d(x, w, b, padding=1),
    "layer norm": lambda x, w, b: F.layer_norm(x, (6,), w, bias=b),
    "group norm": lambda x, w, b: F.group_norm(x, 2, w, b),
    "instance norm": lambda x, w, b: F.instance_norm(x, weight=w, bias=b),
    "batch norm": lambda x, w, b: F.batch_norm(x, MEAN, VARIANCE, w, b),
    "matrix product": lambda x, w, b: x @ w if b is None else torch.addmm(b, x, w),
    "batched product": lambda x, w, b: x @ w if b is None else torch.baddbmm(b, x, w),
}
INPUTS, WEIGHTS, BIASES = (
    ("explained", "recorded", "constant"),
    ("recorded", "constant"),
    ("recorded", "constant", "none"),
)


def operand(kind, explained, drawn):
    if kind == "explained":
        return explained
    return drawn if kind == "recorded" else None if kind == "none" else drawn.detach()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kinds", list(product(INPUTS, WEIGHTS, BIASES)), ids="-".join)
def test_they_add_up(name, kinds):
    shape, *others = SHAPES[name]
    explained, *drawn = leaves(3, shape, shape, *others)
    with ConstantObserver():
        found = FUNCTIONS[name](
            *(operand(k, explained, d) for k, d in zip(kinds, drawn, strict=True))
        )
        value = explained * 1.5 + found
    output = (value * torch.linspace(-1, 2, value.numel()).double().view_as(value)).sum()
    total, magnitude = fullgrad_sum(output, [explained])
    assert abs(total - output.detach()) <= 1e-13 * magnitude
