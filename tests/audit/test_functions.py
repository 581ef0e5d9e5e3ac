"""Which functions tell what scores are."""

import torch
import torch.nn.functional as F

from libragrad_lightning.audit.functions import (
    CLASS_READINGS,
    LOSSES,
    OF_CLASSES,
    OF_LABELS,
    OF_QUANTITIES,
    READINGS,
    SIMILARITIES,
)


def test_losses_compare_and_readings_only_read():
    assert {"cross_entropy", "binary_cross_entropy", "mse_loss", "kl_div"} <= LOSSES
    assert LOSSES - {"kl_div"} == (OF_CLASSES | OF_LABELS | OF_QUANTITIES) - READINGS
    assert {"softmax", "argmax", "sigmoid", "topk", "max", "__gt__"} <= READINGS
    assert LOSSES.isdisjoint(READINGS)
    assert LOSSES.isdisjoint(SIMILARITIES)


def test_what_is_read_of_classes():
    assert {
        "softmax", "log_softmax", "argmax", "sigmoid", "log_sigmoid", "logsumexp",
    } == CLASS_READINGS  # fmt: skip
    assert CLASS_READINGS < READINGS


def test_every_loss_is_one_of_torch():
    names = {name for name in LOSSES if not hasattr(F, name)}
    assert all(hasattr(torch._C._nn, name) for name in names)
