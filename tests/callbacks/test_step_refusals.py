"""Steps that do not say what to explain get one sentence, and following its advice works."""

import re
import warnings

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader
from twin_modules import CLASSES, Data, Plain, example, network

from libragrad_lightning.callbacks import LibraGradAudit, Pictures, Samples

pytestmark = pytest.mark.rotating


def fit(tmp_path, module, make=example, **arguments):
    arguments = {"max_samples": 4, "num_images": 1, "print_summary": False} | arguments
    callback = LibraGradAudit(pictures=Pictures(size=32), metrics=["mif_aopc"], **arguments)
    run = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        limit_train_batches=1,
    )
    loader = DataLoader(Data(make), 4)
    run.fit(module, loader, loader)
    return callback.history[-1].values


class Embedding(Plain):
    """Metric learning: images of a class are to be near each other."""

    def step(self, batch):
        z = F.normalize(self(batch[0]))
        near = batch[1][:, None] == batch[1]
        return (torch.cdist(z, z) * near).mean()


class Contrastive(Plain):
    """Two views of an image are told from those of other images."""

    def step(self, batch):
        first = F.normalize(self.net(batch[0]))
        return F.cross_entropy(first @ first.T * 10, torch.arange(len(first)))


class Flipped(Plain):
    """Test-time augmentation in the step."""

    def logits_labels(self, batch):
        return (self.net(batch[0]) + self.net(batch[0].flip(-1))) / 2, batch[1]


class TwoHeads(Plain):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(48, 3)

    def forward(self, x):
        features = self.net.forward_features(x)
        pooled = self.net.forward_head(features, pre_logits=True)
        return self.net.forward_head(features), self.other(pooled)

    def step(self, batch):
        animals, places = self(batch[0])
        return F.cross_entropy(animals, batch[1]) + F.cross_entropy(places, batch[1] % 3)


class Functional(Plain):
    """The step shows images to no submodule."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CLASSES, 3, 32, 32))

    def logits_labels(self, batch):
        return torch.einsum("bchw,kchw->bk", batch[0], self.weight), batch[1]


class TwoInputs(Plain):
    """What is validated is shown an image and its mirror image."""

    def forward(self, left, right):
        return self.net(left) + right.mean()

    def logits_labels(self, batch):
        return self(batch[0], batch[0].flip(-1)), batch[1]


class MixedInBatch(Plain):
    """Scores depend on the other images, since the step subtracts their mean."""

    def logits_labels(self, batch):
        logits = self(batch[0])
        return logits - logits.mean(0, keepdim=True), batch[1]


class OneScore(Plain):
    def __init__(self):
        super().__init__()
        self.net.reset_classifier(1)

    def training_step(self, batch, batch_idx):
        return self(batch[0]).mean()

    def validation_step(self, batch, batch_idx):
        return self(batch[0])


class ThreeQuantities(Plain):
    def __init__(self):
        super().__init__()
        self.net.reset_classifier(3)

    def step(self, batch):
        return F.mse_loss(self(batch[0]), batch[1])


def image_alone(i):
    return (example(i)[0],)


def quantities(i):
    return example(i)[0], torch.tensor([0.5, 1.5, i / 7])


def from_one(i):
    return example(i)[0], i % CLASSES + 1, example(i)[2]


class OrdinalSum(Plain):
    """A loss of its own that counts labels from 1."""

    def step(self, batch):
        logits = self(batch[0])
        return (logits.sum(1) - batch[1]).square().mean()


def to_prototypes(module, images):
    return F.normalize(module.net(images)) @ torch.eye(CLASSES)


def animals(module, images):
    return module(images)[0]


def first_input(module, images):
    return module(images, torch.zeros_like(images))


CASES = {
    "embeddings": (Embedding, example, "embeddings.*`forward`", {"forward": to_prototypes}),
    "contrastive": (Contrastive, example, "depend on the other images", {"forward": to_prototypes}),
    "several calls": (Flipped, example, r"2 calls.*\(net\).*`forward`", {"forward": "net"}),
    "two heads": (TwoHeads, example, r"forward\[0\], forward\[1\]", {"forward": animals}),
    "no submodule": (Functional, example, "without showing images", {"forward": "net"}),
    "two inputs": (
        TwoInputs,
        example,
        "2 tensors that may be the images",
        {"forward": first_input},
    ),
    "mixed in the batch": (MixedInBatch, example, "depend on the other images", {"forward": "net"}),
    "one score": (OneScore, image_alone, "pass `task`, 'binary' or 'reg", {"task": "regression"}),
    "three quantities": (ThreeQuantities, quantities, "needs `target`", {"target": 2}),
    "labels from one": (
        OrdinalSum,
        from_one,
        "the label 4, but the scores are those of classes 0 to 3.*`unpack`",
        {"unpack": lambda batch: Samples(None, batch[1] - 1)},
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_one_sentence_says_what_is_needed_and_following_it_works(tmp_path, name):
    module, make, sentence, advice = CASES[name]
    with pytest.raises(MisconfigurationException, match=sentence) as caught:
        fit(tmp_path, module(), make)
    assert re.fullmatch(r"[^\n]+[.]", str(caught.value))
    assert fit(tmp_path, module(), make, **advice)


class Uncertain(Plain):
    """Draws in evaluation too."""

    def forward(self, x):
        return self.net(x) + 0.3 * torch.randn(1)


def test_chance_in_evaluation_is_said(tmp_path):
    with pytest.warns(UserWarning, match="gives the same images other scores each time"):
        assert fit(tmp_path, Uncertain())


def test_other_images_than_the_step_shows_are_said(tmp_path):
    def darker(batch):
        return Samples(batch[0] / 2, batch[1])

    with pytest.warns(
        UserWarning, match=r"not those that the validation step shows.*Samples\(None"
    ):
        fit(tmp_path, Plain(), unpack=darker)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="LibraGradAudit")
        fit(tmp_path, Plain(), unpack=lambda batch: Samples(None, batch[1]))


class Modes(Plain):
    """Answers in another way as soon as gradients are recorded."""

    def forward(self, x):
        logits = self.net(x)
        return logits.flip(1) if torch.is_grad_enabled() else logits


def test_scores_that_cannot_be_had_again_are_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="other scores than it gives"):
        fit(tmp_path, Modes())


def test_networks_are_the_same_at_every_call():
    first, second = network(), network()
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
