"""Rewards and targets: exact gradients, and one sentence for what cannot be explained."""

import pytest
import torch

from libragrad_lightning.attribution import REWARDS, log_odds, logit, probability
from libragrad_lightning.attribution.methods import attribution_method
from libragrad_lightning.attribution.rewards import reward_function, reward_gradient
from libragrad_lightning.attribution.targets import target_classes
from libragrad_lightning.attribution.tasks import class_logits

LOGITS = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3
TARGET = torch.tensor([0, 6, 2, 2])


def test_gradients_are_those_of_the_formulas():
    p = LOGITS.softmax(1)
    one_hot = torch.nn.functional.one_hot(TARGET, 7).double()
    p_t = p.gather(1, TARGET[:, None])
    of_probability = p_t * (one_hot - p)
    torch.testing.assert_close(reward_gradient(LOGITS, TARGET, logit), one_hot)
    torch.testing.assert_close(reward_gradient(LOGITS, TARGET, probability), of_probability)
    torch.testing.assert_close(
        reward_gradient(LOGITS, TARGET, log_odds) * p_t * (1 - p_t), of_probability
    )


def test_log_odds_survive_where_the_probability_rounds_to_one():
    certain = torch.tensor([[60.0, 0.0, -5.0]])
    target = torch.tensor([0])
    assert reward_gradient(certain, target, probability)[0, 0] == 0
    torch.testing.assert_close(reward_gradient(certain, target, log_odds)[0, 0], torch.tensor(1.0))


def test_gradients_work_without_gradient_mode():
    with torch.no_grad():
        assert reward_gradient(LOGITS, TARGET, logit).sum() == 4


def test_targets():
    labels = torch.tensor([1, 1, 0, 3])
    assert target_classes("predicted", LOGITS).tolist() == LOGITS.argmax(1).tolist()
    assert target_classes("label", LOGITS, labels).tolist() == labels.tolist()
    assert target_classes(5, LOGITS).tolist() == [5] * 4
    second = target_classes(lambda logits, _: logits.topk(2).indices[:, 1], LOGITS)
    assert second.tolist() == LOGITS.argsort(1)[:, -2].tolist()


def test_one_logit_is_that_of_a_sigmoid():
    z = torch.tensor([[-2.0], [0.5], [0.0]], dtype=torch.float64)
    sigmoid = z[:, 0].sigmoid()
    expected = torch.stack([1 - sigmoid, sigmoid], 1)
    torch.testing.assert_close(class_logits(z).softmax(1), expected)
    assert class_logits(LOGITS) is LOGITS
    # A logit of exactly 0 counts as the prediction 0.
    assert target_classes("predicted", z).tolist() == [0, 1, 0]
    assert target_classes("label", z, torch.tensor([1, 0, 1])).tolist() == [1, 0, 1]
    for side, sign in ((0, -1.0), (1, 1.0)):
        target = torch.full((3,), side)
        assert torch.equal(logit(z, target), sign * z[:, 0])
        assert torch.equal(log_odds(z, target), sign * z[:, 0])
        torch.testing.assert_close(probability(z, target), (sign * z[:, 0]).sigmoid())
        for reward in (logit, log_odds):
            assert torch.equal(reward_gradient(z, target, reward), torch.full_like(z, sign))
        slope = sign * sigmoid * (1 - sigmoid)
        torch.testing.assert_close(reward_gradient(z, target, probability)[:, 0], slope)
    with pytest.raises(ValueError, match=r"from 2 to 2, but the model has 2 classes \(0 to 1\)"):
        target_classes(2, z)


@pytest.mark.parametrize(
    ("target", "labels", "sentence"),
    [
        ("label", None, "needs labels"),
        ("predcited", None, "Unknown target 'predcited'"),
        (7, None, r"from 7 to 7, but the model has 7 classes \(0 to 6\)"),
        (-1, None, "from -1 to -1"),
        ("label", torch.tensor([0, 1]), r"4 images but has shape \(2,\)"),
        (lambda logits, _: logits, None, r"shape \(4, 7\)"),
    ],
)
def test_impossible_targets_get_a_sentence(target, labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        target_classes(target, LOGITS, labels)


def test_labels_and_quantities_have_rewards_of_their_own():
    of_target = LOGITS.gather(1, TARGET[:, None])[:, 0]
    for task in ("multilabel", "regression"):
        for name in ("logit", "log_odds"):
            assert torch.equal(reward_function(name, task)(LOGITS, TARGET), of_target)
    found = reward_function("probability", "multilabel")(LOGITS, TARGET)
    torch.testing.assert_close(found, of_target.sigmoid())
    with pytest.raises(
        ValueError, match=r"A regression has no probability.*\['log_odds', 'logit'\]"
    ):
        reward_function("probability", "regression")
    for task in ("multiclass", "binary"):
        assert reward_function("probability", task) is probability


def test_outputs_of_a_regression_are_named_where_there_are_several():
    labels = torch.rand(4)
    for target in ("predicted", "label"):
        found = target_classes(target, LOGITS[:, :1], labels, "regression")
        assert (found.tolist(), found.dtype) == ([0] * 4, torch.int64)
        with pytest.raises(ValueError, match="regression with 7 outputs needs `target`"):
            target_classes(target, LOGITS, labels, "regression")
    assert target_classes(0, LOGITS[:, :1], labels, "regression").tolist() == [0] * 4
    assert target_classes(3, LOGITS, labels, "regression").tolist() == [3] * 4
    with pytest.raises(ValueError, match="from 1 to 1, but the model has 1 classes"):
        target_classes(1, LOGITS[:, :1], labels, "regression")


def test_no_images_have_no_targets():
    assert target_classes(9, LOGITS[:0]).shape == (0,)


def test_names_are_looked_up_and_functions_pass():
    assert reward_function("logit") is logit
    assert reward_function(logit) is logit
    assert set(REWARDS) == {"logit", "probability", "log_odds"}
    with pytest.raises(ValueError, match="Unknown reward 'logits'"):
        reward_function("logits")
    with pytest.raises(ValueError, match="Unknown method 'ixg'"):
        attribution_method("ixg")


@pytest.mark.parametrize("shape", [(1,), (4, 1), (2, 4, 1)])
def test_the_two_classes_of_one_logit_are_those_of_its_sigmoid(shape):
    logit_ = torch.randn(shape, dtype=torch.float64)
    shares = class_logits(logit_).softmax(-1)
    assert shares.shape == (*shape[:-1], 2)
    torch.testing.assert_close(shares[..., 1:], logit_.sigmoid())
    several = torch.randn(*shape[:-1], 3)
    assert class_logits(several) is several
