"""The page that stands alone, and its JSON."""

import json
import math
import re
from html.parser import HTMLParser

import pytest
import torch

from libragrad_lightning.audit import METRICS, AuditRecord
from libragrad_lightning.diagnosis.coverage import CoverageReport, OperationUse
from libragrad_lightning.reporting import AuditPage, Shown, TableRows
from libragrad_lightning.reporting.directions import LOWER, NEITHER, arrow
from libragrad_lightning.reporting.page import table_html


class Outline(HTMLParser):
    """The text of headings, cells and paragraphs, and which tags are open at the end."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, page):
        super().__init__()
        self.open, self.texts, self.sources = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID and "svg" not in self.open:
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        if "svg" not in self.open or tag == "svg":
            assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "svg" not in self.open and "style" not in self.open:
            self.texts.append((self.open[-1], data.strip()))


def record(epoch, **others):
    values = {"srg/plain": 0.2, "srg/libra": 0.6 + epoch / 10, "accuracy": 0.5} | others
    return AuditRecord(epoch, 100 * epoch, values, 1.5, 8, "current", "drop_tokens")


REPORT = CoverageReport("libra", (OperationUse("GeluBackward0", "activation", 12, 0, ("a",)),))


def page(**others):
    given = {
        "settings": {"rules": ["plain", "libra"], "forward": None},
        "records": [record(0), record(1, **{"completeness_error/libra": math.nan})],
        "panels": {"image_000/ant": torch.zeros(3, 4, 4, dtype=torch.uint8)},
        "strips": {"strip_000/ant": torch.rand(3, 64, 64)},
        "shown": Shown(torch.ones(3, 4, 4), {"best_and_worst": TableRows(("a",), ((1,),))}),
        "coverage": [REPORT],
        "notices": ["Looks at <net>.", "!Something is odd."],
    }
    return AuditPage("audit", ["plain", "libra"], **(given | others))


def test_it_is_whole_and_needs_no_other_file():
    outline = Outline(page().html())
    assert outline.open == []
    kinds = [source.partition(";base64,")[0] for source in outline.sources]
    assert kinds == ["data:image/png", "data:image/png", "data:image/jpeg"]
    headings = [text for tag, text in outline.texts if tag == "h2"]
    assert headings[2:6] == [
        "Curves and differences in the last audit",
        "Best and worst in the last audit",
        "Probe images in the last audit",
        "Probe images over all audits",
    ]
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page().html())


def test_it_shows_the_first_and_the_last_audit_of_each_rule_set():
    texts = [text for tag, text in Outline(page().html()).texts if tag in ("th", "td")]
    start = texts.index("metric")
    assert texts[start : start + 5] == [
        *("metric", "plain, epoch 0, step 0", "plain, epoch 1, step 100"),
        *("libra, epoch 0, step 0", "libra, epoch 1, step 100"),
    ]
    at = texts.index("srg ↑")
    assert texts[at : at + 5] == ["srg ↑", "0.200", "0.200", "0.600", "0.700"]
    at = texts.index("completeness error ↓")
    assert texts[at + 1 : at + 5] == ["-", "-", "-", "-"]


def test_what_was_said_is_escaped_and_warnings_are_marked():
    html = page().html()
    assert "<p>Looks at &lt;net&gt;.</p>" in html
    assert '<p class="warning">Something is odd.</p>' in html


def test_one_audit_has_no_curves_and_a_column_for_each_rule_set():
    html = page(records=[record(3)]).html()
    assert "<svg" not in html
    assert "plain, epoch 3, step 300" in html
    assert page().html().count("<svg") == 1


@pytest.mark.parametrize("weights", ["final", "initial"])
def test_audits_beside_validations_are_named(weights):
    found = AuditRecord(2, 7, {"srg/libra": 0.1}, 1.0, 8, weights)
    said = {"final": "at the end", "initial": "at the start"}[weights]
    assert f"libra, {said}" in page(records=[found]).html()


def test_json_holds_the_same_and_is_strict():
    content = json.loads(page().json(), parse_constant=pytest.fail)
    assert [audit["values"]["srg/libra"] for audit in content["audits"]] == [0.6, 0.7]
    assert content["audits"][1]["values"]["completeness_error/libra"] is None
    gelu = {"role": "activation", "count": 12, "stopped": 0}
    assert content["coverage"] == {"libra": {"GeluBackward0": gelu}}
    assert content["notices"] == ["Looks at <net>.", "Something is odd."]
    assert content["settings"] == {"rules": ["plain", "libra"], "forward": None}
    assert torch.__version__.startswith(content["versions"]["torch"])


def test_settings_that_json_has_no_form_for_stand_by_their_names():
    class Named:
        name = "own"

    content = json.loads(page(settings={"a": Named(), "b": len, "c": ({"d": 1j},)}).json())
    assert content["settings"] == {"a": "own", "b": "len", "c": [{"d": "1j"}]}


def test_every_metric_has_a_direction_or_is_known_to_have_none():
    assert LOWER - {"mean_absolute_error"} <= set(METRICS)
    assert {"drift_cosine", "drift_rank", "drift_ssim"} == NEITHER
    for name, entry in METRICS.items():
        metric = entry.create((0.25, 0.5), "multiclass")
        flipped = name.startswith("lif_") and name != "lif_accuracy"  # the least should drop least
        if name not in NEITHER:
            assert (arrow(name) == "↑") is (metric.higher_is_better is not flipped), name
    assert (arrow("accuracy"), arrow("mean_absolute_error")) == ("↑", "↓")
    assert (arrow("drift_rank"), arrow("own_metric")) == ("", "")


def test_a_class_that_is_called_by_a_number_is_no_number():
    found = table_html(TableRows(("class", "images"), (("747", 3),)))
    assert '<td>747</td><td class="number">3</td>' in found
