"""Every panel shows its own image, its maps under all rule sets, and its mask."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from libragrad_lightning.attribution import Explanation
from libragrad_lightning.audit import ExplainedChunk, Samples
from libragrad_lightning.audit.metric_inputs import MetricInputs
from libragrad_lightning.backward import LIBRA, PLAIN
from libragrad_lightning.reporting import Extremes, PanelDrawer, Pictures, panels
from libragrad_lightning.reporting.charts import RuleSetRuns, announce_charts

COUNT = 3


def explanation(rules, shift):
    maps = torch.randn(COUNT, 4, 4, dtype=torch.float64) + shift
    nothing = torch.zeros(COUNT, 0)
    return Explanation(
        rules=rules,
        attribution=maps,
        prefix=nothing,
        token_biases=nothing,
        image_biases=nothing,
        logit_sums=nothing.T,
        logits=torch.randn(COUNT, 2),
        target=torch.tensor([0, 1, 1]),
    )


class Unasked:
    """Targets that nobody asked for."""

    def of(self, row):
        raise AssertionError(row)


def chunk(masks=True):
    samples = Samples(
        torch.rand(COUNT, 3, 8, 8),
        masks=torch.rand(COUNT, 8, 8) > 0.5 if masks else None,
        ignore=torch.rand(COUNT, 8, 8) > 0.8 if masks else None,
    )
    inputs = [
        MetricInputs(explanation(rules, shift), torch.ones(COUNT).bool(), samples.masks)
        for rules, shift in ((PLAIN, 0.0), (LIBRA, 1.0))
    ]
    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    labels = torch.tensor([0, 0, -1])
    keys = [(number, -1) for number in (4, 0, 2)]
    return ExplainedChunk((4, 0, 2), keys, samples, labels, outputs, inputs, Unasked())


@pytest.fixture
def drawn(monkeypatch):
    found = []

    def draw(image, targets, mask, caption, column_size, placement):
        found.append(SimpleNamespace(**locals()))
        return torch.zeros(3, 1, 1)

    monkeypatch.setattr(panels, "share_panel", draw)
    return found


@pytest.mark.parametrize("masks", [True, False])
def test_a_panel_has_what_belongs_to_its_image(drawn, masks):
    given = chunk(masks)
    drawer = PanelDrawer(Pictures(64, class_names=["ant", "bee"]), 3)
    drawer.draw(given)
    assert list(drawer.named("audit")) == ["audit/image_000/ant", "audit/image_002"]
    for panel, row in zip(drawn, (1, 2), strict=True):
        assert panel.column_size == 64
        assert torch.equal(panel.image, given.samples.images[row])
        (target,) = panel.targets
        assert (target.title, list(target.maps)) == ("", ["plain", "libra"])
        for maps, inputs in zip(target.maps.values(), given.inputs, strict=True):
            assert torch.equal(maps, inputs.explanation.attribution[row].float())
        assert (panel.mask is None) is not masks
        assert panel.mask is None or torch.equal(panel.mask, given.samples.masks[row])
    assert [panel.caption.split("  |  ") for panel in drawn] == [
        ["label ant", "predicted bee 0.73"],
        ["predicted ant 0.95", "explained bee"],
    ]
    assert [drawer.drawn[number].label for number in (0, 2)] == ["label ant", ""]
    assert [drawer.drawn[number].moment.title for number in (0, 2)] == ["bee 0.73", "bee 0.05"]
    assert [drawer.drawn[number].key for number in (0, 2)] == [(0, -1), (2, -1)]


def test_maps_tell_how_good_they_are_and_how_much_they_attribute(drawn):
    given = chunk()
    values = torch.tensor([0.1, 0.25, float("nan")])
    given = replace(given, values={"segmentation_ap/libra": values})
    PanelDrawer(Pictures(), 3).draw(given)
    for panel, row, known in zip(drawn, (1, 2), ("AP 0.25, ", ""), strict=True):
        notes = panel.targets[0].notes
        sums = [float(i.explanation.attribution[row].abs().sum()) for i in given.inputs]
        assert notes == {"plain": f"amount {sums[0]:.3g}", "libra": f"{known}amount {sums[1]:.3g}"}


def test_the_worst_and_the_best_image_are_drawn_wherever_they_are(drawn):
    drawer = PanelDrawer(Pictures(), 1, Extremes())
    for values in ([0.5, 0.4, 0.6], [0.1, float("nan"), 0.55]):
        drawer.draw(replace(chunk(), values={"segmentation_ap/libra": torch.tensor(values)}))
    assert list(drawer.named("audit")) == [
        "audit/image_000/class_0",
        "audit/worst_segmentation_ap",
        "audit/best_segmentation_ap",
    ]
    assert [panel.key for panel in drawer.panels()] == [(0, -1), (4, -1), (2, -1)]
    assert [panel.caption.split("  |  ")[-1] for panel in drawn[1:]] == [
        "best segmentation ap 0.600 (libra): image 2 of the loader",
        "worst segmentation ap 0.100 (libra): image 4 of the loader",
    ]
    assert list(drawer.drawn) == [0]


def test_no_image_is_drawn_twice_where_all_are_drawn(drawn):
    drawer = PanelDrawer(Pictures(), 5, Extremes())
    drawer.draw(replace(chunk(), values={"mif_aopc/libra": torch.tensor([0.1, 0.2, 0.3])}))
    assert list(drawer.named("audit")) == [
        "audit/image_000/class_0",
        "audit/image_002",
        "audit/image_004/class_0",
    ]


def test_normalization_is_undone(drawn):
    given = chunk()
    PanelDrawer(Pictures(mean=(0.5,), std=(0.25,)), 1).draw(given)
    expected = (given.samples.images[1] * 0.25 + 0.5).clamp(0, 1)
    torch.testing.assert_close(drawn[0].image, expected)


@pytest.mark.parametrize("rank_zero", [True, False])
def test_charts_are_announced_to_tensorboard_alone(tmp_path, rank_zero):
    board = TensorBoardLogger(tmp_path)
    run = SimpleNamespace(loggers=[CSVLogger(tmp_path), board], is_global_zero=rank_zero)
    announce_charts(run, "audit", ["srg", "lif_aopc", "drift_rank"], ["plain", "libra"])
    announce_charts(run, "second", ["srg"], ["plain", "libra"])
    board.experiment.flush()
    events = EventAccumulator(board.log_dir).Reload()
    assert ("custom_scalars__config__" in events.Tags()["tensors"]) is rank_zero
    if rank_zero:
        *_, event = events.Tensors("custom_scalars__config__")
        layout = event.tensor_proto.string_val[0].decode("latin-1")
        assert all(f"audit/{metric}$" in layout for metric in ("srg", "lif_aopc", "drift_rank"))
        ends = [f"audit_difference/srg/{end}" for end in ("value", "lower", "upper")]
        assert all(end in layout for end in ends)
        assert "audit_difference/drift_rank" not in layout
        for name in ("audit", "second"):
            assert f"{name}: libra less plain, with 95 % intervals" in layout


@pytest.mark.parametrize("rank_zero", [True, False])
def test_every_rule_set_is_a_run_of_its_own_with_the_same_tags(tmp_path, rank_zero):
    board, runs = TensorBoardLogger(tmp_path), RuleSetRuns()
    run = SimpleNamespace(loggers=[CSVLogger(tmp_path), board], is_global_zero=rank_zero)
    for step in (5, 11):
        values = {"srg/plain": 0.1, "srg/libra": step / 10, "accuracy": 0.5}
        runs.write(run, "audit", values, step)
        runs.close()  # is open again at the next audit
    folders = sorted(path.name for path in Path(board.log_dir).glob("*/"))
    assert folders == (["libra", "plain"] if rank_zero else [])
    if rank_zero:
        events = EventAccumulator(f"{board.log_dir}/libra").Reload()
        assert events.Tags()["scalars"] == ["audit/srg"]
        found = [(scalar.step, scalar.value) for scalar in events.Scalars("audit/srg")]
        assert found == [(5, pytest.approx(0.5)), (11, pytest.approx(1.1))]
