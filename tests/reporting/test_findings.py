"""What is found of single images reaches every logger in the form that it takes."""

from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from score_cases import LEVELS, RULES, STATISTICS, scores
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from libragrad_lightning.audit import ImageScores
from libragrad_lightning.reporting import Findings, RuleSetRuns
from libragrad_lightning.reporting.comparison import differences


def run(tmp_path, *loggers, rank_zero=True):
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=7))
    return SimpleNamespace(
        loggers=loggers,
        is_global_zero=rank_zero,
        fast_dev_run=False,
        default_root_dir=str(tmp_path),
        fit_loop=loop,
    )


def findings(of=None, **others):
    found = scores() if of is None else of
    return Findings(found, STATISTICS, RULES, LEVELS, "multiclass", ["ant", "bee"], **others)


def test_tensorboard_gets_a_figure_tables_histograms_and_margins(tmp_path):
    board, runs = TensorBoardLogger(tmp_path), RuleSetRuns()
    shown = findings().write(run(tmp_path, board), "audit", runs)
    runs.close()
    board.experiment.flush()
    main = EventAccumulator(board.log_dir).Reload()
    (figure,) = main.Images("audit/curves")
    assert (figure.step, figure.width) == (7, shown.figure.shape[2])
    texts = {tag for tag in main.Tags()["tensors"] if tag.endswith("text_summary")}
    assert texts == {f"audit/{name}/text_summary" for name in ("classes", "best_and_worst")}
    (text,) = main.Tensors("audit/classes/text_summary")
    assert text.tensor_proto.string_val[0].decode() == shown.tables["classes"].markdown()
    for name in RULES:
        own = EventAccumulator(f"{board.log_dir}/{name}").Reload()
        (histogram,) = own.Histograms("audit_per_image/segmentation_ap")
        values = scores().values[f"segmentation_ap/{name}"][4:, 0]
        assert histogram.histogram_value.num == 20
        assert histogram.histogram_value.min == pytest.approx(float(values.min()))
        assert "audit_per_image/degenerate_rate" not in own.Tags()["histograms"]
    margins = EventAccumulator(f"{board.log_dir}/libra less plain").Reload()
    for difference in differences(scores(), RULES, STATISTICS):
        for end in ("value", "lower", "upper"):
            (scalar,) = margins.Scalars(f"audit_difference/{difference.metric}/{end}")
            assert scalar.value == pytest.approx(getattr(difference, end))


def test_other_loggers_get_a_table_of_the_images_in_place_of_histograms(tmp_path):
    logger = CSVLogger(tmp_path)
    findings().write(run(tmp_path, logger), "audit", RuleSetRuns())
    written = sorted(str(p.relative_to(logger.log_dir)) for p in tmp_path.rglob("*") if p.is_file())
    assert written == [
        f"audit/{name}/00000007.{kind}"
        for name, kind in (
            ("best_and_worst", "md"),
            ("classes", "md"),
            ("curves", "png"),
            ("scores", "csv"),
        )
    ]


def test_nothing_is_written_of_nothing_and_by_other_processes(tmp_path):
    empty = findings(ImageScores())
    assert empty.write(run(tmp_path), "audit", RuleSetRuns()).figure is None
    other = run(tmp_path, TensorBoardLogger(tmp_path), rank_zero=False)
    assert findings().write(other, "audit", RuleSetRuns()).tables == {}
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
