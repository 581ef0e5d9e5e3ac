"""What is measured under deletion in a lower precision, and what that has moved."""

import pytest
import torch
from config_cases import config
from test_run import LABELS, TALL, audited, group

from libragrad_lightning.audit.config import Deletion

METRICS = ["mif_aopc", "saco"]


def deleted(precision, **given):
    chosen = config(metrics=METRICS, batch_size=2, deletion=Deletion(precision=precision), **given)
    run, found = audited([group(TALL, LABELS)], config=chosen)
    inputs = [each for chunk in run.watcher.chunks for each in chunk.inputs if each.deletion]
    return found, inputs


def test_without_a_lower_precision_nothing_is_rounded():
    found, _ = deleted("explained")
    assert (found.perturbation, found.deletion_rounding) == ("drop_tokens", None)


def test_what_a_lower_precision_moved_is_told():
    (found, rounded), (_, exact) = deleted("bfloat16"), deleted("explained")
    assert found.perturbation == "drop_tokens in bfloat16"
    curves = [
        torch.stack([x.deletion.most_influential_first for x in of])
        for of in (rounded[:2], exact[:2])
    ]
    assert curves[0].dtype == torch.float32
    assert not torch.equal(*curves)
    # Both orders count, of the first images that are explained at once.
    least = [
        torch.stack([x.deletion.least_influential_first for x in of])
        for of in (rounded[:2], exact[:2])
    ]
    both = [torch.cat(pair) for pair in zip(curves, least, strict=True)]
    expected = float((both[0] - both[1]).abs().max() / both[1].std())
    assert found.deletion_rounding == pytest.approx(expected)
    assert not torch.equal(rounded[0].groups.logits, exact[0].groups.logits)
    torch.testing.assert_close(rounded[0].explanation.attribution, exact[0].explanation.attribution)
