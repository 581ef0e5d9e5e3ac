"""The audit says the same of the same validated function, however people package it."""

from collections import namedtuple
from dataclasses import dataclass, field

import lightning as L
import pytest
import torch
import torch.nn.functional as F
import twin_modules as twins
from torch import Tensor
from torch.utils.data import DataLoader
from twin_modules import CLASSES, COUNT, Data, Plain, example, raw

from libragrad_lightning.callbacks import LibraGradAudit, Pictures, Samples

pytestmark = pytest.mark.rotating

METRICS = (
    "mif_accuracy_drop",
    "lif_accuracy",
    "mif_aopc",
    "srg",
    "segmentation_ap",
    "energy_inside",
    "relative_completeness_error",
)
Named = namedtuple("Named", "image label mask")


@dataclass
class Record:
    """A batch of the user's own class."""

    image: Tensor
    label: Tensor
    mask: Tensor


class Kept(Tensor):
    """A tensor subclass that its operations keep, as those of medical and geo packages do."""


@dataclass
class Case:
    module: type[L.LightningModule]
    make: object = example
    arguments: dict = field(default_factory=dict)
    collate: object = None
    compiled: bool = False


def keys(*names):
    return lambda i: dict(zip(names, example(i), strict=True))


def collated(change):
    return lambda batch: change(*torch.utils.data.default_collate(batch))


def one_hot(i):
    return F.one_hot(torch.tensor(i % CLASSES), CLASSES).float()


def soft(i):
    return 0.9 * one_hot(i) + 0.1 / CLASSES


def with_label(label):
    return lambda i: (example(i)[0], label(i), example(i)[2])


def with_mask(change):
    return lambda i: (*example(i)[:2], change(example(i)[2]))


def nested(i):
    image, label, mask = example(i)
    return {"input": {"image": image}, "target": {"label": label, "mask": mask}}


def with_table(i):
    image, label, mask = example(i)
    return {"image": image, "table": torch.tensor([1.0 + i, 0.5]), "y": label, "mask": mask}


def voids(mask):
    """Classes 1 and 2, with a void edge that the plain twin does not have."""
    return mask.to(torch.uint8) * 2


def of_logits(module, images):
    return module.net(images)


CASES = {
    "plain": Case(Plain),
    "softmax": Case(twins.Squashed),
    "log softmax": Case(twins.LogSquashed),
    "exp of log softmax": Case(twins.SquashedByFunction),
    "features and logits": Case(twins.FeaturesAndLogits),
    "dict of scores": Case(twins.DictOfScores),
    "loss and logits": Case(twins.LossAndLogits),
    "keywords": Case(twins.KeywordForward, keys("pixel_values", "labels", "masks")),
    "forward takes the batch": Case(twins.BatchForward, keys("image", "label", "mask")),
    "something beside the image": Case(twins.WithTabular, with_table),
    "no forward": Case(twins.NoForward),
    "forward of another network": Case(twins.DiscriminatorBesideGenerator),
    "head in the step": Case(twins.HeadInStep),
    "head as a function": Case(twins.HeadAsFunction),
    "temperature": Case(twins.Tempered),
    "metrics only": Case(twins.MetricsOnly),
    "outputs only": Case(twins.OutputsOnly),
    "average beside": Case(twins.AverageBeside),
    "normalized in the step": Case(twins.NormalizedInStep, raw),
    "normalized by a module": Case(twins.NormalizedByModule, raw),
    "normalized after transfer": Case(twins.NormalizedAfterTransfer, raw),
    "channels moved in the step": Case(
        twins.ChannelsMovedInStep, lambda i: (example(i)[0].permute(1, 2, 0), *example(i)[1:])
    ),
    "dict": Case(twins.FromDict, keys("image", "label", "mask")),
    "nested": Case(twins.Nested, nested),
    "named tuple": Case(Plain, lambda i: Named(*example(i))),
    "dataclass": Case(twins.ByAttribute, collate=collated(Record)),
    "own class": Case(twins.ByAttribute, collate=collated(lambda *t: _own(t))),
    "index first": Case(twins.IndexFirst, lambda i: (i + 100, *example(i))),
    "labels from one": Case(twins.LabelsFromOne, with_label(lambda i: i % CLASSES + 1)),
    "tensor subclass": Case(
        twins.FromDict,
        collate=collated(
            lambda image, label, mask: {
                "image": image.as_subclass(Kept),
                "label": label,
                "mask": mask.as_subclass(Kept),
            }
        ),
    ),
    "float mask": Case(Plain, with_mask(lambda m: m.float()[None])),
    "soft mask": Case(Plain, with_mask(lambda m: 0.2 + 0.6 * m.float())),
    "mask of 0 and 255": Case(Plain, with_mask(lambda m: m.to(torch.uint8) * 255)),
    "mask of classes": Case(Plain, with_mask(voids)),
    "one-hot labels": Case(Plain, with_label(one_hot)),
    "soft labels": Case(Plain, with_label(soft)),
    "compiled part": Case(twins.CompiledPart),
    "compiled in place": Case(twins.CompiledInPlace),
    "compiled module": Case(Plain, compiled=True),
    "forward as a path": Case(twins.DiscriminatorBesideGenerator, arguments={"forward": "net"}),
    "forward as a function": Case(Plain, arguments={"forward": of_logits}),
    "unpacked": Case(
        twins.IndexFirst,
        lambda i: (i, *example(i)),
        {"unpack": lambda batch: Samples(None, batch[2], batch[3])},
    ),
}


def _own(tensors):
    class Own:
        def __init__(self, image, label, mask):
            self.image, self.label, self.mask = image, label, mask

        def to(self, device):
            return self

    return Own(*tensors)


def logged(case, tmp_path):
    arguments = {"max_samples": COUNT, "num_images": 2, "print_summary": False}
    arguments |= {"metrics": METRICS, "target": "label", "pictures": Pictures(size=32)}
    run = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[LibraGradAudit(**(arguments | case.arguments))],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        limit_train_batches=1,
    )
    module, loader = case.module(), DataLoader(Data(case.make), 4, collate_fn=case.collate)
    run.fit(torch.compile(module, backend="eager") if case.compiled else module, loader, loader)
    names = (*METRICS, "accuracy")
    metrics = run.callback_metrics
    return {
        k: float(v) for k, v in metrics.items() if k.split("/")[1:2] and k.split("/")[1] in names
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    found = logged(Case(Plain), tmp_path_factory.mktemp("plain"))
    assert len(found) == 2 * len(METRICS) + 1
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_the_same_function_has_the_same_values(name, reference, tmp_path):
    assert logged(CASES[name], tmp_path) == pytest.approx(reference, rel=1e-4, abs=1e-4)
