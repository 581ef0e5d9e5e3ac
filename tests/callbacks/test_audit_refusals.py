"""What cannot be audited is refused with one sentence that names the argument to change."""

import pytest
import torch
from audit_cases import Classifier, audit, data, loader, trainer
from libragrad_lightning.callbacks import LibraGradAudit, unpack_batch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

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


def test_no_logger(tmp_path):
    refused(tmp_path, "`num_images=0`", logger=False)
    callback = audit(num_images=0)
    trainer(tmp_path, [callback], logger=False, max_epochs=1).fit(Classifier(), loader(), loader())
    assert callback.history


def test_a_model_without_tokens(tmp_path):
    module = Classifier()
    module.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    refused(tmp_path, "No blocks were found in Classifier.*`blocks`", module=module)


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
        ({"method": "ixg"}, "Unknown method 'ixg'"),
        ({"reward": "odds"}, "Unknown reward 'odds'"),
    ],
)
def test_arguments_are_checked_at_once(kwargs, match):
    with pytest.raises(MisconfigurationException, match=match):
        LibraGradAudit(**kwargs)


@pytest.mark.parametrize(
    "batch",
    [
        (IMAGES, LABELS, MASKS),
        [IMAGES, LABELS, MASKS[:, None].to(torch.uint8)],
        {"image": IMAGES, "label": LABELS, "mask": MASKS},
        {"pixel_values": IMAGES, "labels": LABELS.int(), "masks": MASKS.long()},
    ],
    ids=["tuple", "list", "dict", "transformers"],
)
def test_usual_batches_are_understood(batch):
    samples = unpack_batch(batch)
    assert torch.equal(samples.images, IMAGES)
    assert torch.equal(samples.labels, LABELS)
    assert torch.equal(samples.masks, MASKS)
    assert samples.labels.dtype == torch.int64


@pytest.mark.parametrize("batch", [IMAGES, [IMAGES], {"x": IMAGES}])
def test_images_alone_are_enough(batch):
    samples = unpack_batch(batch)
    assert torch.equal(samples.images, IMAGES)
    assert samples.labels is None
    assert samples.masks is None


@pytest.mark.parametrize("batch", ["text", 3, {"a": IMAGES}, [LABELS], torch.zeros(3)])
def test_batches_without_images_say_what_was_seen(batch):
    with pytest.raises(MisconfigurationException, match="found no images"):
        unpack_batch(batch)


def test_labels_of_another_length():
    with pytest.raises(MisconfigurationException, match="one class index per image"):
        unpack_batch((IMAGES, LABELS[:2]))
