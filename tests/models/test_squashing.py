"""From which scores probabilities were made."""

import pytest
import torch
from torch import nn

from libragrad_lightning.models.squashing import called_with_origins


@pytest.mark.parametrize(
    ("squash", "name", "sign"),
    [
        (lambda z: z.softmax(1), "softmax", 1),
        (lambda z: torch.log_softmax(z, 1).exp(), "log_softmax", 1),
        (lambda z: z.double().sigmoid().clamp(0.1, 0.9).unsqueeze(2).squeeze(2), "sigmoid", 1),
        (lambda z: nn.Softmin(1)(z), "softmin", -1),
        (lambda z: nn.functional.softplus(z).view(-1, 4), "softplus", 1),
    ],
)
def test_the_scores_behind_the_first_squashing_function_are_found(squash, name, sign):
    scores = torch.randn(3, 4)
    found, origins = called_with_origins(lambda: squash(scores))
    unsquashed, said = origins.unsquashed(found)
    assert said == name
    torch.testing.assert_close(unsquashed.float(), sign * scores)


def test_the_trail_goes_from_the_result_to_the_scores():
    scores = torch.randn(3, 4)
    found, origins = called_with_origins(lambda: scores.softmax(1).log().view(3, 4, 1))
    names = [name for name, _ in origins.trail(found)]
    assert names == ["", "view", "log", "softmax"]
    assert origins.trail(found)[-1][1] is scores


def test_what_mixes_scores_ends_the_trail():
    scores = torch.randn(3, 4)
    found, origins = called_with_origins(lambda: (scores.softmax(1) @ torch.eye(4)).exp())
    unsquashed, said = origins.unsquashed(found)
    assert said == "exp"
    torch.testing.assert_close(unsquashed, scores.softmax(1))
    other = torch.randn(3, 4)
    assert origins.unsquashed(other) == (other, "")
