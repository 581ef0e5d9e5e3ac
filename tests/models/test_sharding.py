"""Weights that FSDP spreads over processes are gathered for explanations, and only for these."""

import pytest
import torch
import torch.distributed as dist
from several_processes import needs_fsdp2, run_in_processes
from sharded_models import (
    EXACT,
    WITHIN_IMAGES,
    assert_same,
    in_half,
    join,
    remains,
    replicated,
    replicated_and_wrapped,
    step,
)
from situation_cases import as_it_is, assert_complete, explained, images, vit
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor

from libragrad_lightning import explain
from libragrad_lightning.backward import UnknownConstantError, grad
from libragrad_lightning.models import (
    UnreadableModelError,
    WeightsTooLargeError,
    gathered_weights,
    is_sharded,
    sharding,
)

pytestmark = needs_fsdp2


def explain_a_spread_model(spread, rank):
    """Explain other numbers of images in each process, in the middle of an accumulation."""
    expected = explain(spread_as_one(spread), images(), batch_size=1)
    model, undisturbed = spread(vit()), spread(vit())
    for _ in range(2):
        before = remains(model)
        with gathered_weights(model):  # the other processes have no images
            assert not is_sharded(model)
            assert not any(isinstance(p, DTensor) for p in model.parameters())
            if rank == 0:
                found = explain(model, images(), batch_size=1)
                assert torch.equal(found.logits, expected.logits)
                assert float((found.attribution - expected.attribution).abs().max()) < 1e-12
                assert float((found.residuals / found.logits.max()).abs().max()) < 1e-13
        assert is_sharded(model)
        assert_same(before, remains(model))
        step(model, rank)
        step(undisturbed, rank)
        grads = [
            [p.grad for p in m.parameters() if p.grad is not None] for m in (model, undisturbed)
        ]
        assert_same(*[[g.to_local() if isinstance(g, DTensor) else g for g in of] for of in grads])


def spread_as_one(spread):
    """The model without FSDP, with what else `spread` does to it."""
    model = vit()
    if spread is EXACT["frozen"]:
        model.blocks[1].mlp.fc1.weight = model.blocks[0].mlp.fc1.weight
    return model


def fail_in_one_process(model, rank):
    """A process that fails inside lets the others go on, and leaves the model as it was."""
    before = remains(model)
    try:
        with gathered_weights(model):
            if rank == 1:
                raise ValueError("planted")
            explain(model, images())
    except ValueError:
        assert rank == 1
    assert_same(before, remains(model))
    step(model, rank)


def explain_in_the_precision_of_the_weights(rank):
    model = in_half(vit().float())
    pixels = images().float()
    found, expected = explain(model, pixels), explain(vit().float(), pixels)
    assert torch.equal(found.logits, expected.logits)
    assert model.eval()(pixels).dtype == torch.bfloat16


def differentiate_a_graph_of_fsdp():
    """The engine knows the identity that FSDP2 adds, and does not read memory that it has freed."""
    model, pixels = EXACT["blocks"](vit()), images().requires_grad_()
    (found,) = grad(model(pixels)[:, 0].sum(), pixels)
    (expected,) = grad(vit()(pixels)[:, 0].sum(), pixels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    with pytest.raises(UnknownConstantError, match=r"was freed after the forward pass.*gathered_w"):
        explained(model, images(), as_it_is)
    with gathered_weights(model):
        assert_complete(*explained(model, images(), as_it_is))


def refuse_what_is_spread_within_images():
    for kind, ways in WITHIN_IMAGES.items():
        for spread in ways:
            with pytest.raises(UnreadableModelError, match=f"by {kind} parallelism.*explain that"):
                explain(spread(vit()), images())


def refuse_what_has_no_room(rank):
    """All processes refuse, and what the message advises works."""
    model, known = EXACT["blocks"](vit()), sharding.free_bytes
    wrapper = EXACT["wrapped"](vit())
    weights = sum(p.numel() for p in vit().parameters())
    for room, refused in ((weights * 8 - 1, True), (weights * 8 + 8, False)):
        sharding.free_bytes = lambda device, room=room: room if rank else None
        for spread in (model, wrapper):
            if refused:
                with pytest.raises(WeightsTooLargeError, match=r"takes 0.000\d+ GiB.*explain that"):
                    explain(spread, images())
            else:
                explain(spread, images())
    sharding.free_bytes = known
    options = StateDictOptions(full_state_dict=True)
    whole = vit(seed=1)
    whole.load_state_dict(get_model_state_dict(model, options=options))
    assert torch.equal(explain(whole, images()).logits, explain(vit(), images()).logits)


def process(rank, folder):
    join(rank, folder)
    for spread in EXACT.values():
        explain_a_spread_model(spread, rank)
    for name in ("blocks", "wrapped"):
        fail_in_one_process(EXACT[name](vit()), rank)
    explain_in_the_precision_of_the_weights(rank)
    differentiate_a_graph_of_fsdp()
    refuse_what_is_spread_within_images()
    refuse_what_has_no_room(rank)
    dist.barrier()
    dist.destroy_process_group()


def process_of_four(rank, folder):
    join(rank, folder, 4)
    for spread in (replicated, replicated_and_wrapped, EXACT["blocks"], EXACT["wrapped"]):
        explain_a_spread_model(spread, rank)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_four_processes(tmp_path):
    run_in_processes(process_of_four, tmp_path, 4, seconds=600)


def test_two_processes(tmp_path):
    # One test for everything, because starting the processes takes longer than all their work.
    run_in_processes(process, tmp_path)
