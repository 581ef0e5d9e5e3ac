"""Watching and explaining compile nothing."""

import lightning as L
import pytest
import torch
import twin_modules as twins
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader
from twin_modules import COUNT, Data, Plain, example

from libragrad_lightning.callbacks import LibraGradAudit


class CompiledLoss(Plain):
    """A compiled function in the step, outside of all modules."""

    def __init__(self):
        super().__init__()
        self.loss = torch.compile(torch.nn.functional.cross_entropy, backend="eager")

    def step(self, batch):
        logits, labels = self.logits_labels(batch)
        return self.loss(logits, labels)


class Quiet(Plain):
    """Lightning's logging, if it is compiled with the step, is compiled anew as it changes."""

    def validation_step(self, batch, batch_idx):
        return self.step(batch)


CASES = {
    "part": (twins.CompiledPart, False),
    "in place": (twins.CompiledInPlace, False),
    "function": (CompiledLoss, False),
    "module": (Quiet, True),
}


def graphs(tmp_path, name, callbacks):
    """How many graphs a run compiles, and what it logs."""
    make, whole = CASES[name]
    torch._dynamo.reset()
    counters.clear()
    L.seed_everything(1, verbose=False)
    module = make()
    run = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    loader = DataLoader(Data(example), 4)
    run.fit(torch.compile(module, backend="eager") if whole else module, loader, loader)
    weights = torch.cat([p.detach().flatten() for p in module.parameters()])
    return dict(counters["stats"]), float(weights.sum())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_an_audit_compiles_no_graph(tmp_path, name):
    callback = LibraGradAudit(max_samples=COUNT, num_images=0, metrics="srg", print_summary=False)
    without = graphs(tmp_path, name, [])
    assert without[0]["unique_graphs"] > 0
    assert graphs(tmp_path, name, [callback]) == without
    assert len(callback.history) == 2


@pytest.mark.filterwarnings("ignore")
def test_half_precision_weights_of_a_compiled_part_are_explained_in_full(tmp_path):
    callback = LibraGradAudit(max_samples=4, num_images=0, print_summary=False)
    run = L.Trainer(
        accelerator="cpu",
        precision="bf16-true",
        logger=False,
        callbacks=[callback],
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    run.validate(twins.CompiledPart(), DataLoader(Data(example), 4), verbose=False)
    assert callback.history[0].values["relative_completeness_error/libra"] < 1e-4
