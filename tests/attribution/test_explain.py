"""`explain`: one call, in chunks, and a sentence for every bad input."""

import pytest
import timm
import torch
from torch import nn

from libragrad_lightning import explain
from libragrad_lightning.attribution import Captured
from libragrad_lightning.models import UnreadableModelError

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LITTLE = 1e-9
"""So little memory that every image is explained alone."""


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = timm.create_model("vit_tiny_patch16_224", num_classes=6, **SMALL).eval()
    for p in net.parameters():
        p.data.normal_(0, 0.2)
    return net


def test_chunks_give_what_the_whole_gives(model):
    whole = explain(model.double(), IMAGES.double())
    alone = explain(model, IMAGES.double(), memory_gib=LITTLE)
    for name in (
        "attribution",
        "prefix",
        "token_biases",
        "image_biases",
        "reward_sums",
        "target",
    ):
        torch.testing.assert_close(getattr(whole, name), getattr(alone, name))
    assert whole.attribution.shape == (5, 4, 4)
    assert whole.residuals.shape == (3, 5)
    assert whole.residuals.abs().max() < 1e-12


SIZES = []
"""What a hook sees is put back afterwards wherever the hook holds it, but not in a global list."""


def test_every_image_is_recorded_once_per_chunk(model):
    SIZES.clear()
    model.register_forward_pre_hook(lambda _, args: SIZES.append(len(args[0])))
    explain(model, IMAGES, memory_gib=LITTLE)
    # Reading, measuring, weighing, explaining; behind the first images, where patches lie.
    assert SIZES == [2, 4, 4, 1] + [1] * 9
    SIZES.clear()
    explain(model, IMAGES)
    assert SIZES == [2, 4, 4, 1, 5, 1, 1, 1, 1]
    SIZES.clear()
    explain(model, IMAGES, batch_size=2)
    assert SIZES == [2, 4, 4, 2, 1, 1, 1, 1, 2, 1]


def test_the_model_is_as_it_was(model):
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with torch.no_grad():
        explain(model, IMAGES)
    assert model.training
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("target", [[0, 1, 2, 3, 4], torch.arange(5), lambda z, _: torch.arange(5)])
def test_targets_may_differ_by_image(model, target):
    explanation = explain(model, IMAGES, target=target, memory_gib=2)
    assert explanation.target.tolist() == [0, 1, 2, 3, 4]
    third = explain(model, IMAGES[2:3], target=2)
    torch.testing.assert_close(explanation.attribution[2:3], third.attribution)


def test_targets_go_with_their_images_through_chunks(model):
    model, images = model.double(), IMAGES.double()
    whole, in_pairs = (explain(model, images, target=range(5), batch_size=n) for n in (5, 2))
    assert in_pairs.target.tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(in_pairs.attribution, whole.attribution)


def test_the_biases_told_are_those_of_the_reward(model):
    model, images = model.double(), IMAGES.double()
    of_reward = {
        reward: explain(model, images, target=1, reward=reward).token_biases
        for reward in ("logit", "log_odds")
    }
    assert (of_reward["logit"] - of_reward["log_odds"]).abs().max() > 1e-3
    for reward, biases in of_reward.items():
        asked = explain(
            model, images, target=1, reward=reward, method=lambda captured: captured.token_biases[0]
        )
        expected = torch.cat([asked.prefix, asked.attribution.flatten(1)], 1)
        torch.testing.assert_close(biases, expected)


def test_rules_rewards_and_methods_go_by_name_or_are_functions(model):
    def mine(captured: Captured):
        return captured.features[0].abs().sum(-1)

    plain = explain(model, IMAGES, rules="plain", reward="logit", method="input_x_gradient")
    assert plain.rules.name == "plain"
    assert (plain.residuals.abs() / plain.target_logit.abs()).mean() > 1e-2
    assert (explain(model, IMAGES, method=mine).attribution > 0).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"target": 6}, r"`target` names classes from 6 to 6, but the model has 6 classes"),
        ({"target": -1}, r"`target` names classes from -1 to -1"),
        (
            {"target": [0, 1]},
            r"`target` must name one class for each of 5 images but has shape \(2,",
        ),
        ({"target": torch.zeros(5, 2)}, r"`target` must name one class for each of 5 images"),
        ({"target": "best"}, "Unknown target 'best'; `target` takes"),
        ({"method": "magic"}, "Unknown method 'magic'; `method` takes one of"),
        ({"rules": "none"}, "Unknown rule set 'none'; `rules` takes one of"),
        ({"reward": "loss"}, "Unknown reward 'loss'; `reward` takes one of"),
    ],
)
def test_arguments_that_cannot_work(model, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        explain(model, IMAGES, **arguments)


class Segmenter(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        return self.net.forward_features(images)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (IMAGES[:0], r"B >= 1 but is torch.float32 \(0, 3, 32, 32\)"),
        (IMAGES[0], r"\[B, C, H, W\] with B >= 1 but is torch.float32 \(3, 32, 32\)"),
        (torch.randn(1, 3, 4, 4), r"does not accept images \(3, 4, 4\)"),
        (IMAGES.double(), r"does not accept images \(3, 32, 32\), torch.float64 on cpu"),
    ],
    ids=["no images", "one image", "smaller than a patch", "another type"],
)
def test_images_that_cannot_work(model, images, sentence):
    with pytest.raises(UnreadableModelError, match=sentence):
        explain(model, images)


def test_logits_of_more_than_two_axes(model):
    with pytest.raises(
        UnreadableModelError, match=r"logits of shape \[B, C\] but returned \(2, 17"
    ):
        explain(Segmenter(model), IMAGES)


def test_tokens_that_fill_no_grid():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = timm.create_model("vit_tiny_patch16_224", **SMALL)
            self.net._pos_embed = lambda x: x[:, :6]

        def forward(self, images):
            return self.net(images)

    with pytest.raises(UnreadableModelError, match="lie in no grid of the image"):
        explain(Pairs().eval(), IMAGES)
