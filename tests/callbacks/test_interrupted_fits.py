"""A fit that its user ends leaves what its audits have found."""

import json
import signal

import pytest
from audit_cases import Classifier, loader, quick_audit, trainer
from lightning.pytorch.callbacks import Callback


class Ending(Callback):
    """Ends a fit in its third epoch."""

    def __init__(self, error):
        self.error = error

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            raise self.error


@pytest.fixture(autouse=True)
def _interrupts():
    """Lightning ignores them after the first one."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def fit(folder, error, **kwargs):
    callback = quick_audit(print_summary=True)
    few = {"max_epochs": 4, "limit_train_batches": 1}
    process = trainer(folder, [callback, Ending(error)], **few, **kwargs)
    with pytest.raises((type(error), SystemExit)):
        process.fit(Classifier(), loader(count=8), loader(count=8))
    return callback


def test_the_page_and_the_table_of_an_interrupted_fit_are_there(tmp_path, capsys):
    callback = fit(tmp_path, KeyboardInterrupt())
    assert len(callback.history) == 2
    (page,) = tmp_path.rglob("audit.json")
    assert len(json.loads(page.read_text())["audits"]) == 2
    assert (page.with_suffix(".html")).exists()
    assert "srg" in capsys.readouterr().out


def test_errors_are_shown_as_they_are_and_nothing_is_written_of_no_audit(tmp_path, capsys):
    fit(tmp_path / "error", ValueError("planted"))
    fit(tmp_path / "never", KeyboardInterrupt(), check_val_every_n_epoch=3)
    assert not list(tmp_path.rglob("audit.html"))
    assert "srg" not in capsys.readouterr().out
