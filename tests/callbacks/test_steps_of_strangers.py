"""What a step does beside computing scores changes nothing about what is explained, or about it."""

import copy
import gc
import pickle
import weakref

import lightning as L
import pytest
import timm
import torch
import torch.nn.functional as F
import torchmetrics
import twin_modules as twins
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader
from twin_modules import CLASSES, COUNT, Data, Plain, example, network

from libragrad_lightning import explain
from libragrad_lightning.callbacks import LibraGradAudit

pytestmark = [pytest.mark.rotating, pytest.mark.filterwarnings("ignore")]


def run_with(tmp_path, module, make=example, fit=False, callbacks=(), batch_size=4, **arguments):
    names = {"metrics": ["segmentation_ap", "relative_completeness_error"], "max_samples": COUNT}
    callback = LibraGradAudit(num_images=0, print_summary=False, **(names | arguments))
    run = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        callbacks=[callback, *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    loader = DataLoader(Data(make), batch_size)
    if fit:
        run.fit(module, loader, loader)
    else:
        run.validate(module, loader, verbose=False)
    return callback.history[-1].values


def accuracy(scores=lambda images: network()(images), labels=None):
    images = torch.stack([example(i)[0] for i in range(COUNT)])
    labels = torch.arange(COUNT) % CLASSES if labels is None else labels
    return float((scores(images).argmax(1) == labels).float().mean())


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return run_with(tmp_path_factory.mktemp("plain"), Plain())


class InPlace(Plain):
    """Normalizes images, and counts labels, in place."""

    def step(self, batch):
        images, labels = batch[0].sub_(twins.MEAN).div_(twins.STD), batch[1]
        labels -= 1
        loss = F.cross_entropy(self(images), labels)
        images.mul_(0.1)
        labels.zero_()
        return loss

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()


def raw_from_one(i):
    image, label, mask = twins.raw(i)
    return image, label + 1, mask


class ScoresOverwritten(Plain):
    def step(self, batch):
        scores = self(batch[0])
        loss = F.cross_entropy(scores, batch[1])
        scores.zero_()
        return loss


class Popped(Plain):
    def step(self, batch):
        labels = batch.pop("label")
        return F.cross_entropy(self(batch.pop("image")), labels)


class LossOfUniformFirst(Plain):
    def step(self, batch):
        scores = self(batch[0])
        uniform = torch.full_like(scores, 1 / CLASSES)
        flat = F.kl_div(scores.log_softmax(1), uniform, reduction="batchmean")
        return flat + F.cross_entropy(scores, batch[1])


class EntropyFirst(Plain):
    def step(self, batch):
        scores = self(batch[0])
        return F.cross_entropy(scores, scores.softmax(1)) + F.cross_entropy(scores, batch[1])


class HeadAndMetricFirst(twins.HeadInStep):
    """What is computed of the scores before the loss needs the labels of the batch."""

    def __init__(self):
        super().__init__()
        self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=CLASSES)

    def step(self, batch):
        scores = self.head(self.net(batch[0]))
        self.accuracy(scores, batch[1])
        right = scores[torch.arange(len(scores)), batch[1]].mean()
        sparse = (self.net.norm.weight <= 0).float().mean()
        return F.cross_entropy(scores, batch[1]) + 0 * (right + sparse)


class SparsityLogged(twins.HeadInStep):
    def step(self, batch):
        features = self.net(batch[0])
        self.log("sparsity", (features <= 0).float().mean(), batch_size=4)
        return F.cross_entropy(self.head(features), batch[1])


class OwnCrossEntropy(twins.HeadInStep):
    def step(self, batch):
        scores = self.head(self.net(batch[0]))
        return (scores.logsumexp(1) - scores.gather(1, batch[1][:, None])[:, 0]).mean()


class LearnedTemperature(twins.HeadInStep):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def step(self, batch):
        scores = self.net(batch[0]) @ self.head.weight.T
        scores += self.head.bias
        return F.cross_entropy(self.scale.exp() * scores, batch[1])


class Once(Plain):
    """Writes down what it does outside of itself."""

    def validation_step(self, batch, batch_idx):
        WRITTEN.append(batch_idx)
        super().validation_step(batch, batch_idx)


CASES = {
    "in place": (InPlace, raw_from_one),
    "scores overwritten": (ScoresOverwritten, example),
    "popped": (Popped, lambda i: dict(zip(("image", "label", "mask"), example(i), strict=True))),
    "another loss first": (LossOfUniformFirst, example),
    "entropy first": (EntropyFirst, example),
    "head and metric first": (HeadAndMetricFirst, example),
    "sparsity": (SparsityLogged, example),
    "own cross entropy": (OwnCrossEntropy, example),
    "learned temperature": (LearnedTemperature, example),
}


@pytest.mark.parametrize("fit", [True, False], ids=["fit", "validate"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_scores_and_labels_are_seen(tmp_path, truth, name, fit):
    make, item = CASES[name]
    assert run_with(tmp_path, make(), item, fit) == pytest.approx(truth, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("make", [Once, twins.HeadInStep])
def test_a_step_runs_once(tmp_path, make):
    torch._dynamo.reset()  # where something is compiled, it has to run eagerly for a second time
    WRITTEN.clear()
    step = make.logits_labels

    class Counted(make):
        def logits_labels(self, batch):
            COUNTED.append(1)
            return step(self, batch)

    COUNTED.clear()
    run_with(tmp_path, Counted())
    assert len(COUNTED) == 3
    assert ([0, 1, 2] if make is Once else []) == WRITTEN


COUNTED, WRITTEN = [], []
"""Out of reach of what is put back after an audit."""


def test_weights_that_a_step_exchanges_are_left_as_they_are_and_refused(tmp_path):
    module = twins.AverageSwapped()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(MisconfigurationException, match="weights that the step exchanges"):
        run_with(tmp_path, module)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


class Domains(Plain):
    """What is beside the images changes from batch to batch."""

    def forward(self, x, domain):
        return self.net(x).roll(domain, 1)

    def validation_step(self, batch, batch_idx):
        F.cross_entropy(self(batch[0], batch_idx), batch[1])


class Bytes(Plain):
    """Knows bytes by their type."""

    def forward(self, x):
        return self.net((x.float() / 255 - 0.5) / 0.25 if x.dtype == torch.uint8 else x)


class Rearranged(Plain):
    def logits_labels(self, batch):
        return self(batch[0].flip(-1)), batch[1]


class Views(Plain):
    """The scores of an image are those of two views of it."""

    def logits_labels(self, batch):
        views = torch.cat([batch[0], batch[0].flip(-1)])
        return self(views).view(2, -1, CLASSES).mean(0), batch[1]


class Neighbors(Plain):
    """Classes are those of the nearest of a bank of images."""

    def __init__(self):
        super().__init__()
        self.bank = nn.Parameter(torch.randn(40, CLASSES))

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        near = F.normalize(self(batch[0])) @ F.normalize(self.bank).T
        return near.topk(5).indices % CLASSES == batch[1][:, None]


class FloatingMarks(Plain):
    def __init__(self):
        super().__init__()
        self.net.reset_classifier(1)

    def step(self, batch):
        return (self(batch[0])[:, 0] - batch[1].float()).square().mean()


def as_bytes(i):
    return (example(i)[0] * 40 + 120).clamp(0, 255).byte(), i % CLASSES


def marks(i):
    return example(i)[0], float(i % 2)


REFUSED = {
    "domains": (Domains, example, "changes from batch to batch"),
    "bytes": (Bytes, as_bytes, "is shown uint8 images"),
    "rearranged": (Rearranged, example, "rearranges its images"),
    "views": (Views, example, "8 images for 4 labels"),
    "neighbors": (Neighbors, example, "returns embeddings"),
    "floating marks": (FloatingMarks, marks, "classes or quantities; pass `task`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_explained_as_it_is_gets_a_sentence(tmp_path, name):
    make, item, sentence = REFUSED[name]
    with pytest.raises(MisconfigurationException, match=sentence):
        run_with(tmp_path, make(), item)


class FewLabels(Plain):
    def step(self, batch):
        return F.binary_cross_entropy_with_logits(self(batch[0]), batch[1])


def few_labels(i):
    image, label, mask = example(i)
    found = F.one_hot(torch.tensor(label), CLASSES).float()
    return image, found if i < 4 else torch.ones(CLASSES), mask


def test_the_first_batch_does_not_decide_how_many_labels_there_are(tmp_path):
    values = run_with(tmp_path, FewLabels(), few_labels)
    images = torch.stack([example(i)[0] for i in range(COUNT)])
    labels = torch.stack([few_labels(i)[1] for i in range(COUNT)])
    expected = ((network()(images) > 0) == (labels > 0)).float().mean()
    assert values["accuracy"] == pytest.approx(float(expected), abs=1e-6)


class Positive(Plain):
    """A quantity that is positive."""

    def __init__(self):
        super().__init__()
        self.net.reset_classifier(1)

    def forward(self, x):
        return F.softplus(self.net(x))

    def step(self, batch):
        return F.mse_loss(self(batch[0])[:, 0], batch[1])


def test_quantities_are_compared_as_the_model_returns_them(tmp_path):
    def make(i):
        return example(i)[0], 0.3 * i

    module = Positive()
    values = run_with(tmp_path, module, make, metrics="mif_aopc")
    images = torch.stack([example(i)[0] for i in range(COUNT)])
    expected = (module.eval()(images)[:, 0] - 0.3 * torch.arange(COUNT)).abs().mean()
    assert values["mean_absolute_error"] == pytest.approx(float(expected), rel=1e-5)


class Distances(Plain):
    """The nearest class is the likeliest."""

    def forward(self, x):
        return F.softmin(-self.net(x), dim=1)

    def step(self, batch):
        return F.nll_loss(self(batch[0]).log(), batch[1])


def test_the_least_of_distances_is_explained(tmp_path, truth):
    assert run_with(tmp_path, Distances()) == pytest.approx(truth, rel=1e-4, abs=1e-4)


class Gray(Plain):
    def __init__(self):
        super().__init__()
        size = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}
        self.net = timm.create_model("vit_tiny_patch16_224", in_chans=1, num_classes=4, **size)

    def logits_labels(self, batch):
        return self(batch[0].float().view(-1, 1, 32, 32) / 255), batch[1]


@pytest.mark.parametrize("shape", [(1, 32, 32), (32, 32)])
def test_gray_images_are_no_masks(tmp_path, shape):
    def make(i):
        generator = torch.Generator().manual_seed(i)
        return torch.randint(0, 256, shape, generator=generator).byte(), i % CLASSES

    names = ["segmentation_ap", "srg"]
    values = run_with(tmp_path, Gray(), make, metrics=names)
    assert "srg/libra" in values
    assert "segmentation_ap/libra" not in values


class Copy(Callback):
    """Copies the module while its step is about to be watched."""

    copies = ()

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        module = copy.deepcopy(pl_module)
        module._trainer = None
        self.copies = (module, pickle.loads(pickle.dumps(module)))


def test_a_module_can_be_copied_while_it_is_watched(tmp_path):
    copies = Copy()
    module = Plain()
    run_with(tmp_path, module, callbacks=[copies])
    assert "validation_step" not in vars(module)
    batch = next(iter(DataLoader(Data(example), 4)))
    with torch.no_grad():
        for found in copies.copies:
            assert found.step(batch) == module.step(batch)


def test_lazy_modules_may_come_to_life_in_validation(tmp_path):
    class Lazy(Plain):
        def __init__(self):
            super().__init__()
            self.net.head = nn.LazyLinear(CLASSES)

    values = run_with(tmp_path, Lazy(), fit=True)
    assert values["relative_completeness_error/libra"] < 1e-4


class Broken(Plain):
    def validation_step(self, batch, batch_idx):
        self(batch[0])
        raise ZeroDivisionError("the user's own")


def test_errors_of_the_step_are_the_users_own_and_nothing_stays(tmp_path):
    module = Broken()
    with pytest.raises(ZeroDivisionError, match="the user's own"):
        run_with(tmp_path, module)
    assert "validation_step" not in vars(module)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_a_head_in_the_step_is_followed_as_it_is_trained(tmp_path):
    class Trained(twins.HeadInStep):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.05)

    module, found = Trained(), []

    class Look(Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                images = torch.stack([example(i)[0] for i in range(COUNT)])
                masks = torch.stack([example(i)[2] for i in range(COUNT)])
                explanation = explain(
                    module, images, forward=lambda x: module.head(module.net(x)), progress=False
                )
                found.append(float(twins.torchmetrics.MeanMetric()(precision(explanation, masks))))

    callback = LibraGradAudit(
        metrics="segmentation_ap", max_samples=COUNT, num_images=0, print_summary=False
    )
    run = L.Trainer(
        accelerator="cpu", max_epochs=3, logger=False, callbacks=[callback, Look()],
        enable_progress_bar=False, enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    loader = DataLoader(Data(example), 4)
    run.fit(module, loader, loader)
    audited = [record.values["segmentation_ap/libra"] for record in callback.history]
    assert audited == pytest.approx(found, rel=1e-4)
    assert len({round(value, 4) for value in audited}) == 3


def precision(explanation, masks):
    from libragrad_lightning.metrics.functional import segmentation_average_precision

    return segmentation_average_precision(explanation.heatmap((32, 32)), masks).mean()


class OverwrittenThroughView(Plain):
    """Classes that are not allowed are masked through a view of the scores."""

    def step(self, batch):
        scores = self(batch[0])
        scores[:, 1].sub_(100)
        scores.view(-1)[2::CLASSES] -= 100
        return F.cross_entropy(scores, batch[1])


class ManyMetrics(twins.HeadInStep):
    def __init__(self):
        super().__init__()
        kinds = (torchmetrics.Accuracy, torchmetrics.F1Score, torchmetrics.AUROC) * 3
        self.metrics = nn.ModuleList(k(task="multiclass", num_classes=CLASSES) for k in kinds)

    def step(self, batch):
        scores = self.head(self.net(batch[0]))
        for metric in self.metrics:
            metric(scores, batch[1])
        return F.cross_entropy(scores, batch[1])


class BiasOfParameter(twins.HeadInStep):
    def step(self, batch):
        scores = self.net(batch[0]) @ self.head.weight.T
        return F.cross_entropy(scores + (self.head.bias * 2) / 2, batch[1])


class PoppedOutput(Plain):
    def forward(self, x):
        return {"logits": self.net(x), "other": x.mean()}

    def step(self, batch):
        output = self(batch[0])
        scores = output.pop("logits")
        output.clear()
        return F.cross_entropy(scores, batch[1])


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("make", [ManyMetrics, BiasOfParameter, PoppedOutput])
def test_scores_are_followed_whatever_else_is_made_of_them(tmp_path, truth, make, batch_size):
    values = run_with(tmp_path, make(), batch_size=batch_size)
    assert values == pytest.approx(truth, rel=1e-4, abs=1e-4)


def test_scores_that_are_overwritten_through_a_view_are_those_that_are_used(tmp_path):
    values = run_with(tmp_path, OverwrittenThroughView())
    offset = torch.tensor([0.0, 100, 100, 0])
    assert values["accuracy"] == pytest.approx(accuracy(lambda x: network()(x) - offset))
    assert values["relative_completeness_error/libra"] < 1e-4


class Detour(twins.HeadInStep):
    """The way from features to scores leaves torch."""

    def step(self, batch):
        features = torch.from_numpy(self.net(batch[0]).detach().numpy())
        return F.cross_entropy(self.head(features), batch[1])


class Merged(twins.HeadInStep):
    """What the step computes has the size of the batch in it."""

    def step(self, batch):
        features = self.net(batch[0])
        pairs = torch.cat([features, torch.zeros(len(batch[0]), 48)], 1).view(len(batch[0]), 2, -1)
        return F.cross_entropy(self.head(pairs.sum(1)), batch[1])


@pytest.mark.parametrize(
    ("make", "sentence"), [(Detour, "cannot be followed; pass `forward`"), (Merged, "a batch of")]
)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_way_that_cannot_be_followed_is_refused(tmp_path, make, sentence, batch_size):
    def forward(module, images):
        return module.head(module.net(images))

    with pytest.raises(MisconfigurationException, match=sentence):
        run_with(tmp_path, make(), batch_size=batch_size)
    values = run_with(tmp_path, make(), batch_size=batch_size, forward=forward)
    assert values["accuracy"] == pytest.approx(accuracy())


@pytest.mark.parametrize("make", [Plain, twins.HeadInStep, LearnedTemperature])
def test_half_precision_weights_are_explained_in_copies_with_a_head_in_the_step(tmp_path, make):
    module = make().to(torch.bfloat16)

    def halves(i):
        image, label, mask = example(i)
        return image.to(torch.bfloat16), label, mask

    values = run_with(tmp_path, module, halves)
    assert values["relative_completeness_error/libra"] < 1e-4


def test_nothing_of_a_step_is_held_afterwards(tmp_path):
    class Watched(twins.HeadInStep):
        def logits_labels(self, batch):
            features = self.net(batch[0])
            SEEN.append(weakref.ref(features))
            return self.head(features), batch[1]

    SEEN.clear()
    callback = LibraGradAudit(max_samples=4, num_images=0, print_summary=False)
    run = L.Trainer(
        accelerator="cpu", logger=False, callbacks=[callback], default_root_dir=tmp_path,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    run.validate(Watched(), DataLoader(Data(example), 4), verbose=False)
    gc.collect()
    assert SEEN
    assert not any(reference() is not None for reference in SEEN)


SEEN = []
