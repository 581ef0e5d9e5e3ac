"""An audit that takes long is a line in the progress bar that the Trainer has."""

from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import pytorch_lightning
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from rich.console import Console
from rich.progress import Progress

from libragrad_lightning.monitoring import progress
from libragrad_lightning.monitoring.progress import audit_progress

BOTH = pytest.mark.parametrize("package", [pl, pytorch_lightning])


class OtherBar(ProgressBar):
    """A user's own bar."""


def a_trainer(bar, rank_zero=True):
    return SimpleNamespace(progress_bar_callback=bar, is_global_zero=rank_zero)


def rich_bar(console, package=pl):
    bar = package.callbacks.RichProgressBar()
    bar.progress = Progress(console=console, auto_refresh=False)
    bar.progress.start()
    return bar


@BOTH
def test_a_long_audit_is_a_line_of_the_rich_bar_and_leaves_none(package, monkeypatch):
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    bar = rich_bar(Console(force_terminal=True, quiet=True), package)
    bar.progress.add_task("Validation", total=8)
    with audit_progress(a_trainer(bar), "audit", 12) as shown:
        shown.update(4)
        shown.update(5)
        _, line = bar.progress.tasks
        assert (line.description, line.completed, line.total) == ("audit", 9, 12)
    assert [task.description for task in bar.progress.tasks] == ["Validation"]
    bar.progress.stop()


def test_a_short_audit_is_not_shown():
    bar = rich_bar(Console(force_terminal=True, quiet=True))
    with audit_progress(a_trainer(bar), "audit", 12) as shown:
        shown.update(12)
        assert bar.progress.tasks == []
    bar.progress.stop()


@BOTH
def test_a_bar_of_tqdm_stands_below_those_of_lightning(package, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    bar = package.callbacks.TQDMProgressBar(process_position=1)
    with audit_progress(a_trainer(bar), "audit", 12) as shown:
        shown.update(4)
        assert (shown.total, shown.desc, shown.leave, shown.pos) == (12, "audit", False, -4)
    written = capsys.readouterr()
    assert "audit:   0%" in written.out
    assert written.err == ""


@pytest.mark.parametrize(
    ("bar", "rank_zero", "shown"),
    [
        (OtherBar(), True, True),
        (None, True, False),
        (OtherBar(), False, False),
        (TQDMProgressBar(refresh_rate=0), True, False),
        (RichProgressBar(refresh_rate=0), True, False),
        (TQDMProgressBar(), False, False),
    ],
)
def test_nothing_is_shown_where_the_trainer_shows_nothing(bar, rank_zero, shown, capsys):
    with audit_progress(a_trainer(bar, rank_zero), "audit", 12) as found:
        found.update(1)
        assert found.disable is not shown
    assert capsys.readouterr().out == ""
