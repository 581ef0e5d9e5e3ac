"""What cannot be audited is refused with one sentence that names the argument to change."""

import lightning as L
import pytest
from audit_cases import Classifier, audit, data, grouped, loader, trainer
from lightning.fabric import Fabric
from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from libragrad_lightning.callbacks import LibraGradAudit
from libragrad_lightning.monitoring.requirements import check_trainer

IMAGES, LABELS, MASKS = data(4).tensors


def refused(tmp_path, match, callback=None, module=None, validation=None, **kwargs):
    run = trainer(tmp_path, [callback or audit()], **({"max_epochs": 1} | kwargs))
    with pytest.raises(MisconfigurationException, match=match):
        run.fit(module or Classifier(), loader(), validation or loader())
    assert run.global_step == 0


def test_no_validation_loader(tmp_path):
    run = trainer(tmp_path, [audit()])
    with pytest.raises(MisconfigurationException, match="will not validate"):
        run.fit(Classifier(), loader())


class Checkpointed(nn.Module):
    def __init__(self, part, use_reentrant):
        super().__init__()
        self.part, self.use_reentrant = part, use_reentrant

    def forward(self, x):
        return checkpoint(self.part, x, use_reentrant=self.use_reentrant)


@pytest.mark.parametrize(
    ("use_reentrant", "match"),
    [(False, "call `checkpoint` only `if self.training`"), (True, "CheckpointFunctionBackward")],
)
def test_gradient_checkpointing_that_cannot_be_switched_off(tmp_path, use_reentrant, match):
    module = Classifier()
    for block in module.net.blocks:
        block.mlp = Checkpointed(block.mlp, use_reentrant)
    refused(tmp_path, match, module=module)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_stage_3_of_deepspeed(tmp_path, stage):
    run = trainer(tmp_path)
    run.strategy.__class__ = DeepSpeedStrategy
    run.strategy.config = {"zero_optimization": {"stage": stage}}
    if stage < 3:
        check_trainer(run, "validate")
    else:
        with pytest.raises(MisconfigurationException, match=r"stage 3.*'deepspeed_stage_2'"):
            audit().setup(run, Classifier(), "fit")


def test_fabric():
    match = r"has no validation loop.*`libragrad_lightning.explain`"
    with pytest.raises(MisconfigurationException, match=match):
        Fabric(accelerator="cpu", devices=1, callbacks=[audit()]).setup(Classifier())


@pytest.mark.parametrize("steps", [0, 1])
def test_a_start_that_does_not_show_the_probe_set(tmp_path, steps):
    callback = audit(at_start=True)
    refused(
        tmp_path, "`Trainer\\(num_sanity_val_steps=-1\\)`", callback, num_sanity_val_steps=steps
    )


def test_a_model_without_tokens(tmp_path):
    module = Classifier()
    module.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    refused(tmp_path, "No blocks were found in Classifier.*`blocks`", module=module)


def test_a_validation_loader_that_is_not_there(tmp_path):
    refused(
        tmp_path,
        "validation loader 2 of 1; pass a smaller `dataloader_idx`",
        audit(dataloader_idx=2),
    )


def test_a_test_without_the_loader_of_the_probe_set_is_not_audited(tmp_path):
    callback = audit(dataloader_idx=1)
    run = trainer(tmp_path, [callback])
    run.test(Classifier(), loader(), verbose=False)
    assert callback.history == []


def test_a_wrong_path(tmp_path):
    refused(tmp_path, "no submodule 'network'", audit(backbone="network"))


def test_a_batch_that_cannot_be_unpacked(tmp_path):
    class Odd(Classifier):
        def validation_step(self, batch, batch_idx):
            pass

    flat = DataLoader(TensorDataset(IMAGES.flatten(1), LABELS), 4)
    refused(
        tmp_path,
        r"a list of float32 \(4, 3072\), int64 \(4,\).*`unpack`",
        module=Odd(),
        validation=flat,
    )


def test_a_module_that_computes_nothing_and_has_no_forward(tmp_path):
    class Nothing(Classifier):
        forward = L.LightningModule.forward

        def training_step(self, batch, batch_idx):
            return self.net(batch[0]).sum()

        def validation_step(self, batch, batch_idx):
            pass

    refused(tmp_path, "`forward`", module=Nothing())


def test_an_unpack_function_that_returns_something_else(tmp_path):
    refused(tmp_path, "`unpack` must return", audit(unpack=tuple))


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ((IMAGES, LABELS, MASKS[:, :16]), r"masks of shape \(4, 16, 32\).*resize the masks"),
        ((IMAGES.clone().fill_(float("nan")), LABELS, MASKS), "NaN or infinite"),
    ],
    ids=["mask-size", "nan"],
)
def test_data_that_cannot_be_right(tmp_path, tensors, match):
    refused(tmp_path, match, validation=DataLoader(TensorDataset(*tensors), 4))


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"max_samples": 0}, "`max_samples` of at least 1 but got 0"),
        ({"every_n_epochs": 0}, "`every_n_epochs` of at least 1"),
        ({"batch_size": 0}, "`batch_size` of at least 1"),
        ({"num_images": -1}, "`num_images` of at least 0"),
        ({"metrics": ["srg", "auc"]}, r"metrics \['auc'\]"),
        ({"levels": [0.5, 1.2]}, "`levels` must be fractions"),
        ({"rules": ["libre"]}, "Unknown rule set 'libre'"),
        ({"rules": []}, "at least one rule set"),
        ({"metrics": ["deletion_auc"], "levels": [0.5]}, "cannot measure 'deletion_auc'"),
        ({"perturbation": "pixels"}, r"`perturbation` takes one of \['tokens'"),
        ({"precision": "half"}, "`precision` takes"),
        ({"on_error": "ignore"}, "`on_error` takes"),
        ({"probe": "last"}, "`probe` takes"),
        ({"probe": [3, 3]}, "different places"),
        ({"probe": [-1]}, "different places"),
        ({"probe": []}, "different places"),
        ({"max_overhead": 0.0}, "`max_overhead` above 0"),
        ({"every_n_train_steps": 0}, "`every_n_train_steps` of at least 1"),
        ({"method": "ixg"}, "Unknown method 'ixg'"),
        ({"reward": "odds"}, "Unknown reward 'odds'"),
        ({"task": "classes"}, r"`task` takes one of \['auto', 'multiclass'"),
        ({"target": "truth"}, "`target` takes"),
        ({"dataloader_idx": -1}, "`dataloader_idx` of at least 0"),
        ({"image_size": 8}, "`size` of at least 32"),
        ({"class_names": "names.txt"}, "`class_names` to be a list"),
    ],
)
def test_arguments_are_checked_at_once(kwargs, match):
    with pytest.raises(MisconfigurationException, match=match):
        LibraGradAudit(**grouped(**kwargs))
