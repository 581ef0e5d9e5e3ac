"""The page on troubleshooting lists what the package refuses, as it is today."""

import re
from pathlib import Path

import pytest
import timm
import torch
from _site import refusals

from libragrad_lightning import explain
from libragrad_lightning.callbacks import LibraGradAudit, ShortcutAlarm
from libragrad_lightning.metrics import SegmentationAP

PAGE = refusals.PAGE.read_text(encoding="utf-8")


def test_the_lists_are_those_of_the_source():
    assert refusals.page(PAGE) == PAGE, "run `python docs/_site/refusals.py`"
    assert refusals.uncovered(PAGE) == []


def test_sentences_are_read_with_constants_functions_and_what_is_filled_in(tmp_path):
    source = tmp_path / "source.py"
    source.write_text(
        "ADVICE = 'pass `b`'\n"
        "def said(x):\n    return f'{x} is in the way; {ADVICE}.'\n"
        "def f(a):\n"
        "    raise ValueError(f'There is no {a.b}' ', so ' + ADVICE)\n"
        "    raise AuditError(said(a))\n"
        "    raise NotImplementedError('in a subclass, of course')\n"
        "    raise KeyError(a)\n"
    )
    assert refusals.refusals(Path(source)) == [
        "There is no …, so pass `b`",
        "… is in the way; pass `b`.",
    ]


def shown(sentence):
    """Whether the page has the sentence, with its gaps filled."""
    lines = re.findall(r"^- (.*)$", PAGE, re.MULTILINE)
    patterns = [".*".join(map(re.escape, line.split("…"))) for line in lines]
    return any(re.fullmatch(pattern, sentence, re.DOTALL) for pattern in patterns)


def vit():
    return timm.create_model("test_vit", img_size=32)


@pytest.mark.parametrize(
    "refused",
    [
        lambda: LibraGradAudit(rules=[]),
        lambda: LibraGradAudit(max_samples=0),
        lambda: LibraGradAudit(metrics=["nonsense"]),
        lambda: ShortcutAlarm(patience=0),
        lambda: explain(vit(), torch.zeros(1, 3, 32, 32, dtype=torch.long)),
        lambda: explain(vit(), torch.rand(1, 3, 32, 32), target=5000),
        lambda: explain(vit(), torch.rand(1, 3, 32, 32), blocks=["nowhere"]),
        lambda: explain(vit(), torch.rand(1, 3, 32, 32), method="nonsense"),
        lambda: SegmentationAP().update(torch.rand(2, 4), torch.ones(2, 4, 4).bool()),
    ],
)
def test_what_is_raised_is_on_the_page(refused):
    with pytest.raises(Exception, match=r"\w") as caught:
        refused()
    assert shown(str(caught.value)), str(caught.value)
    assert not shown("This is said by nobody.")
