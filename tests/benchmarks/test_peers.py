"""What the comparison says of libraries: the twin it builds, what it measures, and its page."""

import pytest
import timm
import torch
from torch import nn

from comparison_model import as_torchvision
from comparison_page import Row, others_first, page, quality
from comparison_peers import METHODS, Method
from comparison_worker import TRIALS, explained, lines_written, traces


@pytest.fixture
def model():
    found = timm.create_model("vit_small_patch14_dinov2", img_size=112, num_classes=20)
    for parameter in found.parameters():
        nn.init.normal_(parameter, std=0.05)
    return found.double().eval()


def test_the_twin_in_torchvision_has_the_same_logits(model):
    images = torch.randn(2, 3, 112, 112, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(as_torchvision(model).eval()(images), model(images))


def leaving_hook(model, images, labels):
    model.register_forward_hook(lambda *_: None)
    return images.sum(1), None


def leaving_gradients(model, images, labels):
    model(images).sum().backward()
    return images.sum(1), images.sum((1, 2, 3))


@pytest.mark.parametrize(
    ("leave", "left"),
    [(leaving_hook, "hooks"), (leaving_gradients, "gradients in the parameters")],
)
def test_what_is_left_behind_is_seen(leave, left):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    images, labels = torch.randn(2, 3, 2, 2), torch.tensor([0, 1])
    method = Method("some", "method", leave)
    assert traces(method, network, images, labels) == left
    found = explained(method, network, images, labels)
    torch.testing.assert_close(found["maps"], images.sum(1))
    assert (found["sums"] is None) == (leave is leaving_hook)


def test_lines_of_users_are_counted():
    assert lines_written(METHODS["ours"]) == 3
    assert lines_written(Method("some", "method", leaving_hook)) == 2


def row(name, gain=0.5, seconds=1.0, error=0.1):
    result = {"lines": 3, "traces": "nothing", **dict.fromkeys(TRIALS, "yes")}
    result["explained"] = {"seconds": seconds, "memory": 10.0}
    return Row(METHODS[name], result, error, (0.4, 0.6), gain, 0.7)


def looked(name):
    return {"version": "1", "callbacks": [], "metrics": len(name), "trained": "has none"}


def test_where_others_are_better_is_said_and_nowhere_else():
    rows = [
        row("ours"),
        row("lxt", gain=0.6, seconds=2.0),
        row("zennit", gain=0.4, error=float("nan")),
    ]
    (said,) = others_first(rows)
    assert said == (
        "- **symmetric relevance gain**, where our default has 0.5: "
        "lxt: AttnLRP, gamma 0.25 and 0.05 (0.6)."
    )
    assert others_first([row("ours"), row("ours_plain", gain=0.9)]) == []


def test_what_failed_is_a_row_with_its_reason():
    failed = Row(METHODS["xplique"], {"explained": "no: ImportError", "lines": 5})
    table = quality([row("ours"), failed], {"ours": 0.25})
    assert table.splitlines()[-1].startswith("| xplique: Gradient x Input | no: ImportError |")


def test_the_page_names_what_could_not_be_run():
    libraries = {"libragrad-lightning": looked("ours"), "foxai": "ERROR: no matching distribution"}
    text = page([row("ours")], {"ours": 0.25}, libraries, "not at hand", 24)
    assert "| foxai | not run: ERROR: no matching distribution |" in text
    assert "| the authors' code | not run: not at hand |" in text
    assert text.index("## Where others are better") < text.index("## Maps, cost and lines")
