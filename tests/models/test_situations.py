"""Models are explained completely, and undisturbed, in whatever situation they come."""

import threading

import pytest
import torch
import torch.nn.functional as F
from situation_cases import Trained, as_it_is, assert_complete, explained, images, vit
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from libragrad_lightning.backward import LIBRA, PLAIN, TrainingStatisticsError, grad
from libragrad_lightning.backward.graph import nodes_inputs_first
from libragrad_lightning.models import explanation_state


def compiled_whole(model, backend):
    return torch.compile(model, backend=backend)


def compiled_part(model, backend):
    model.blocks[1].mlp = torch.compile(model.blocks[1].mlp, backend=backend)
    return model


def compiled_in_place(model, backend):
    model.compile(backend=backend)
    return model


@pytest.mark.parametrize("arrange", [compiled_whole, compiled_part, compiled_in_place])
def test_compiled_modules_are_explained_eagerly_and_stay_compiled(arrange):
    compilations = []

    def backend(graph, _):
        compilations.append(graph)
        return graph.forward

    torch.compiler.reset()
    model = arrange(vit(), backend)
    with torch.no_grad():
        before = model(images())
    count = len(compilations)
    assert count
    logits, total = explained(model, images())
    assert_complete(logits, total)
    assert torch.equal(logits, vit()(images()).detach())
    with torch.no_grad():
        assert torch.equal(model(images()), before)
    assert len(compilations) == count


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_around_an_explanation_does_not_reach_it(dtype):
    model, pixels = vit().float(), images().float()
    expected = explained(model, pixels)
    with torch.autocast("cpu", dtype):
        found = explained(model, pixels)
        assert not torch.equal(model(pixels).float(), expected[0])
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_weights_of_half_precision(dtype, tolerance):
    model, pixels = vit().to(dtype), images().to(dtype)
    undisturbed = model(pixels)
    logits, total = explained(model, pixels)
    assert logits.dtype == dtype
    assert torch.equal(logits, undisturbed)
    assert_complete(logits, total, tolerance)


@pytest.mark.parametrize("name", ["", "blocks.0", "head"])
def test_frozen_parameters(name):
    model = vit()
    model.get_submodule(name).requires_grad_(False)
    undisturbed = model(images().requires_grad_()).detach()
    logits, total = explained(model, images())
    assert_complete(logits, total)
    assert torch.equal(logits, undisturbed)


def test_one_module_that_runs_twice_and_one_weight_with_two_owners():
    model = vit()
    model.blocks[1] = model.blocks[0]
    model.head.bias = model.blocks[0].mlp.fc2.bias
    model.head.weight = nn.Parameter(model.head.weight.new_ones(24, 24) / 24)
    assert_complete(*explained(model, images()))


def test_a_weight_that_multiplies_its_own_transpose():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 3 * 32 * 32, dtype=torch.float64) / 50)
            self.bias = nn.Parameter(torch.randn(8, dtype=torch.float64))

        def forward(self, x):
            hidden = F.gelu(F.linear(x.flatten(1), self.weight, self.bias))
            decoded = F.gelu(hidden @ self.weight)
            return F.linear(decoded, self.weight, self.bias)

    assert_complete(*explained(Tied(), images()))


class Recurrent(nn.Module):
    """Reads the rows of an image one after the other."""

    def __init__(self, **kwargs):
        super().__init__()
        self.lstm = nn.LSTM(96, 8, batch_first=True, **kwargs)
        self.head = nn.LazyLinear(5)

    def forward(self, x):
        sequence, (hidden, cell) = self.lstm(x.transpose(1, 2).flatten(2))
        return self.head(torch.cat([sequence.mean(1), hidden[0], cell[0]], 1))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("kwargs", [{}, {"bidirectional": True, "num_layers": 2}, {"proj_size": 4}])
def test_lstms_are_explained_and_keep_their_last_bit(dtype, tolerance, kwargs):
    model, pixels = Recurrent(**kwargs), images().to(dtype)
    model(images().float())
    undisturbed = model.to(dtype)(pixels).detach()
    logits, total = explained(model, pixels)
    assert torch.equal(logits, undisturbed)
    assert_complete(logits, total, tolerance)
    assert torch.equal(model(pixels), undisturbed)


def test_lstms_on_packed_sequences_keep_their_last_bit():
    lstm = nn.LSTM(96, 8)
    packed = pack_padded_sequence(torch.randn(32, 2, 96), [32, 20])
    undisturbed, (hidden, cell) = lstm(packed)
    with explanation_state(lstm):
        found, states = lstm(packed)
    assert torch.equal(found.data, undisturbed.data)
    assert torch.equal(states[0], hidden)
    assert torch.equal(states[1], cell)
    operations = {node.name() for node in nodes_inputs_first([found.data.grad_fn])}
    assert "SigmoidBackward0" in operations


def test_gradient_checkpointing_is_off_inside_and_on_again_outside():
    model = vit()
    expected = explained(model, images())
    model.set_grad_checkpointing()
    logits, total = explained(model, images())
    assert model.grad_checkpointing
    assert torch.equal(logits, expected[0])
    assert torch.equal(total, expected[1])


def test_one_graph_is_used_twice():
    model = vit()
    with explanation_state(model):
        x = images().requires_grad_()
        score = model(x)[:, 0].sum()
        libra, plain, again = (
            grad(score, x, rules=rules, retain_graph=True)[0] for rules in (LIBRA, PLAIN, LIBRA)
        )
        (ordinary,) = torch.autograd.grad(score, x)
    assert torch.equal(libra, again)
    assert torch.equal(plain, ordinary)
    assert not torch.allclose(libra, plain)


def test_a_batch_norm_in_training_mode_is_refused():
    model = Trained(nn.BatchNorm2d(8)).double().train()
    with pytest.raises(TrainingStatisticsError, match=r"call `model.eval\(\)`"):
        explained(model, images(), state=as_it_is)
    assert_complete(*explained(model, images()))
    assert model.training


@pytest.mark.parametrize(
    "layer",
    [
        *(nn.Dropout(0.5), nn.Dropout2d(0.5), nn.FeatureAlphaDropout(0.5)),
        *(nn.AlphaDropout(0.5), nn.AlphaDropout(0.5, inplace=True)),
    ],
    ids=str,
)
def test_dropout_in_training_mode_is_explained_as_it_was_drawn(layer):
    model = Trained(layer).double().train()
    logits, total = explained(model, images(), state=as_it_is)
    assert_complete(logits, total)
    assert not torch.equal(logits, explained(model, images())[0])


def test_attention_with_dropout_in_training_mode_is_explained_as_it_was_drawn():
    model = vit(attn_drop_rate=0.3, proj_drop_rate=0.3, drop_path_rate=0.3).train()
    logits, total = explained(model, images(), state=as_it_is)
    assert_complete(logits, total)
    assert not torch.equal(logits, explained(model, images())[0])


def together(*explanations):
    """Run explanations in threads that start at the same time; return what they return."""
    barrier = threading.Barrier(len(explanations), timeout=20)
    results = [None] * len(explanations)

    def run(i):
        barrier.wait()
        results[i] = explanations[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(explanations))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_threads_that_explain_two_models_get_what_each_gets_alone():
    models = [vit(0), vit(1, depth=3)]
    alone = [explained(model, images()) for model in models]
    found = together(*[lambda m=m: [explained(m, images()) for _ in range(5)] for m in models])
    for results, expected in zip(found, alone, strict=True):
        for result in results:
            assert torch.equal(result[0], expected[0])
            assert torch.equal(result[1], expected[1])


def test_threads_that_explain_the_same_model_take_turns_and_put_it_back():
    model = vit().train()
    model.requires_grad_(False)
    inside = []

    def explain():
        with explanation_state(model):
            inside.append(threading.get_ident())
            result = explained(model, images())  # a thread may nest its own explanations
            assert inside[-1] == threading.get_ident()
            inside.append(threading.get_ident())
        return result

    found = together(*[explain] * 4)
    assert inside[::2] == inside[1::2]
    assert all(torch.equal(result[1], found[0][1]) for result in found)
    assert all(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
