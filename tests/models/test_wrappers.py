"""What other libraries put around modules, and on them, is out of the way inside."""

import pytest
import torch
from lightning.fabric import Fabric
from situation_cases import assert_complete, explained, images, vit
from torch import nn
from torch.distributed._composable import checkpoint
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    checkpoint_wrapper,
    offload_wrapper,
)

from libragrad_lightning import explain
from libragrad_lightning.models import explanation_state
from libragrad_lightning.models.wrappers import passed_through

WRAPPERS = {
    "checkpointed": checkpoint_wrapper,
    "reentrant": lambda part: checkpoint_wrapper(part, CheckpointImpl.REENTRANT),
    "offloaded": offload_wrapper,
    "by hooks": checkpoint,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_parts_whose_activations_are_computed_again(wrap):
    model = vit()
    model.blocks = nn.Sequential(*map(wrap, model.blocks))
    expected = explain(vit(), images())
    before = [(dict(vars(m)), dict(m._forward_pre_hooks)) for m in model.modules()]
    found = explain(model, images())
    assert torch.equal(found.logits, expected.logits)
    torch.testing.assert_close(found.attribution, expected.attribution, rtol=0, atol=1e-12)
    assert_complete(*explained(model, images()))
    assert [(dict(vars(m)), dict(m._forward_pre_hooks)) for m in model.modules()] == before


def test_a_forward_of_a_module_that_is_its_own_comes_back():
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

    wrapper = Wrapper(nn.Identity())
    wrapper.forward = own = lambda x: -x
    with passed_through({wrapper: wrapper.inner}):
        assert wrapper(1) == 1
    assert wrapper.forward is own
    assert wrapper(1) == -1


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_modules_of_fabric_are_explained_in_full_precision(precision):
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    model, pixels = vit().float(), images().float()
    expected = explain(model, pixels)
    found = explain(fabric.setup(model), pixels)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.attribution, expected.attribution)


def test_hooks_of_users_stay():
    model, seen = vit(), []
    model.blocks[0].register_forward_hook(lambda *_: seen.append(1))
    with explanation_state(model):
        model(images())
        assert seen == [1]
