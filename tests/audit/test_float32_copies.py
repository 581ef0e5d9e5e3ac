"""Float32 copies stand in for half-precision weights, and leave no trace."""

import pytest
import torch
from torch import nn

from libragrad_lightning.audit import in_float32
from libragrad_lightning.audit.precision import floating_dtype


def a_model(dtype):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3, bias=False))
    model.to(dtype)
    model[2].weight = model[0].weight  # shared
    model[0].bias.requires_grad_(False)
    model[2]._dtype, model[0]._dtype = dtype, torch.float64
    return model.eval()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_replaced_and_put_back(dtype, fails):
    model = a_model(dtype)
    before = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    try:
        with in_float32(model, True):
            assert {p.dtype for p in model.parameters()} == {torch.float32}
            assert model[1].running_mean.dtype == torch.float32
            assert model[1].num_batches_tracked is before["1.num_batches_tracked"]
            assert model[2].weight is model[0].weight
            assert isinstance(model[0].weight, nn.Parameter)
            wanted = [p.requires_grad for p in model.parameters()]
            assert wanted == [before[n].requires_grad for n, _ in model.named_parameters()]
            assert (model[2]._dtype, model[0]._dtype) == (torch.float32, torch.float64)
            assert torch.equal(model[0].weight, before["0.weight"].float())
            assert model(torch.randn(2, 3)).dtype == torch.float32
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert before.keys() == after.keys()
    assert all(after[name] is tensor for name, tensor in before.items())
    assert (model[2]._dtype, model[0]._dtype) == (dtype, torch.float64)


def test_nothing_is_replaced_that_need_not_be():
    for model, wanted in ((a_model(torch.bfloat16), False), (a_model(torch.float64), True)):
        before, dtype = list(model.parameters()), model[2]._dtype
        with in_float32(model, wanted):
            assert all(p is q for p, q in zip(model.parameters(), before, strict=True))
            assert model[2]._dtype is dtype


def test_images_have_the_dtype_of_the_weights():
    assert floating_dtype(nn.Linear(1, 1).to(torch.float64)) is torch.float64
    assert floating_dtype(nn.Identity()) is torch.float32
    mixed = nn.Linear(1, 1).half()
    mixed.register_parameter("a", nn.Parameter(torch.zeros(1, dtype=torch.int8), False))
    assert floating_dtype(mixed) is torch.float16
