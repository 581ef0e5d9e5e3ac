"""The same validated function in the clothes of many users.

Every module here computes exactly what `Plain` computes, with a batch that says the same, so the
audit must log the same values of it.
"""

import contextlib

import lightning as L
import timm
import torch
import torch.nn.functional as F
import torchmetrics
from torch import nn
from torch.utils.data import Dataset

MEAN, STD, SIDE, CLASSES, COUNT = 0.45, 0.27, 32, 4, 12


def network():
    """A small vision transformer whose every parameter matters, the same at every call."""
    torch.manual_seed(0)
    size = {"img_size": SIDE, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, **size)
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        scale = 0.3 if p.dim() <= 1 else 0.15
        p.data += scale * torch.randn(p.shape, generator=generator)
    model.head.bias.data.zero_()
    return model


def example(i):
    """Image (normalized), label, mask (bool)."""
    g = torch.Generator().manual_seed(100 + i)
    image = torch.randn(3, SIDE, SIDE, generator=g)
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    y, x = torch.randint(0, SIDE // 2, (2,), generator=g).tolist()
    mask[y : y + SIDE // 2, x : x + SIDE // 2] = True
    return image, i % CLASSES, mask


def raw(i):
    image, label, mask = example(i)
    return image * STD + MEAN, label, mask


class Data(Dataset):
    def __init__(self, make):
        self.make = make

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        return self.make(i)


class Plain(L.LightningModule):
    """The plain twin; the others change one thing each."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x)

    def logits_labels(self, batch):
        return self(batch[0]), batch[1]

    def step(self, batch):
        logits, labels = self.logits_labels(batch)
        return F.cross_entropy(logits, labels)

    def training_step(self, batch, batch_idx):
        return self.step(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.step(batch), batch_size=4)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


class Squashed(Plain):
    """`forward` returns probabilities, or their logarithm."""

    squash = nn.Softmax(-1)

    def forward(self, x):
        return self.squash(self.net(x))

    def step(self, batch):
        found = self(batch[0])
        is_log = isinstance(self.squash, nn.LogSoftmax)
        return F.nll_loss(found if is_log else found.log(), batch[1])


class LogSquashed(Squashed):
    squash = nn.LogSoftmax(-1)


class SquashedByFunction(Squashed):
    def forward(self, x):
        return torch.exp(F.log_softmax(self.net(x), dim=1))


class FeaturesAndLogits(Plain):
    def forward(self, x):
        features = self.net.forward_features(x)
        pooled = self.net.forward_head(features, pre_logits=True)
        return pooled, self.net.forward_head(features)

    def logits_labels(self, batch):
        return self(batch[0])[1], batch[1]


class DictOfScores(Plain):
    """Two heads of the same size; the step uses the second."""

    def forward(self, x):
        logits = self.net(x)
        return {"coarse": logits.flip(1), "fine": logits, "norm": logits.norm(dim=1)}

    def logits_labels(self, batch):
        return self(batch[0])["fine"], batch[1]


class LossAndLogits(Plain):
    def forward(self, x, labels=None):
        logits = self.net(x)
        return logits if labels is None else (F.cross_entropy(logits, labels), logits)

    def step(self, batch):
        return self(batch[0], batch[1])[0]


class KeywordForward(Plain):
    def forward(self, **inputs):
        return self.net(inputs["pixel_values"])

    def logits_labels(self, batch):
        return self(**{k: v for k, v in batch.items() if k != "masks"}), batch["labels"]


class BatchForward(Plain):
    """`forward` takes the batch."""

    def forward(self, batch):
        return self.net(batch["image"])

    def logits_labels(self, batch):
        return self(batch), batch["label"]


class WithTabular(Plain):
    """What stands beside an image decides about its scores."""

    def forward(self, image, table):
        return self.net(image * table[:, :1, None, None])

    def logits_labels(self, batch):
        return self(batch["image"] / batch["table"][:, :1, None, None], batch["table"]), batch["y"]


class NoForward(Plain):
    forward = L.LightningModule.forward

    def logits_labels(self, batch):
        return self.net(batch[0]), batch[1]


class DiscriminatorBesideGenerator(Plain):
    """`forward` is another network's; what is validated is `self.net`."""

    def __init__(self):
        super().__init__()
        self.generator = nn.Linear(8, 3 * SIDE * SIDE)

    def forward(self, z):
        return self.generator(z).view(-1, 3, SIDE, SIDE)

    def logits_labels(self, batch):
        return self.net(batch[0]), batch[1]


class HeadInStep(Plain):
    """The step itself goes from features to scores."""

    def __init__(self):
        super().__init__()
        self.head = self.net.head
        self.net.head = nn.Identity()

    def logits_labels(self, batch):
        return self.head(self.net(batch[0])), batch[1]


class HeadAsFunction(HeadInStep):
    """Scores are similarities to fixed vectors, computed in the step."""

    def logits_labels(self, batch):
        return self.net(batch[0]) @ self.head.weight.T + self.head.bias, batch[1]


class Tempered(Plain):
    """The loss is given other scores than the metrics, which are those of the classes."""

    def step(self, batch):
        logits = self(batch[0])
        self.log("accuracy", (logits.argmax(1) == batch[1]).float().mean(), batch_size=4)
        return F.cross_entropy(logits / 2, batch[1])


class MetricsOnly(Plain):
    """The validation step has no loss."""

    def __init__(self):
        super().__init__()
        self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=CLASSES)

    def validation_step(self, batch, batch_idx):
        self.accuracy.update(self(batch[0]), batch[1])
        self.log("accuracy", self.accuracy)


class OutputsOnly(Plain):
    """The step returns scores, for a callback."""

    def validation_step(self, batch, batch_idx):
        return self(batch[0])


class AverageBeside(Plain):
    """The step validates an average that the module keeps beside the trained network."""

    def __init__(self):
        super().__init__()
        self.average, self.net = self.net, nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 4))

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self.average(batch[0]), batch[1]), batch_size=4)


class AverageSwapped(Plain):
    """The step swaps averaged weights in, and out again."""

    def __init__(self):
        super().__init__()
        self.averages = {n: p.detach().clone() for n, p in self.net.named_parameters()}
        for p in self.net.parameters():
            p.data = p.data * 0.9

    @contextlib.contextmanager
    def averaged(self):
        trained = {n: p.data for n, p in self.net.named_parameters()}
        for name, p in self.net.named_parameters():
            p.data = self.averages[name]
        yield
        for name, p in self.net.named_parameters():
            p.data = trained[name]

    def validation_step(self, batch, batch_idx):
        with self.averaged():
            loss = self.step(batch)
        self.log("val_loss", loss, batch_size=4)


class NormalizedInStep(Plain):
    def logits_labels(self, batch):
        return self((batch[0] - MEAN) / STD), batch[1]


class NormalizedByModule(Plain):
    def __init__(self):
        super().__init__()
        self.normalize = Normalize()

    def logits_labels(self, batch):
        return self(self.normalize(batch[0])), batch[1]


class Normalize(nn.Module):
    def forward(self, x):
        return (x - MEAN) / STD


class NormalizedAfterTransfer(Plain):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [(batch[0] - MEAN) / STD, *batch[1:]]


class ChannelsMovedInStep(Plain):
    def logits_labels(self, batch):
        return self(batch[0].permute(0, 3, 1, 2)), batch[1]


class Nested(Plain):
    def logits_labels(self, batch):
        return self(batch["input"]["image"]), batch["target"]["label"]


class FromDict(Plain):
    def logits_labels(self, batch):
        return self(batch["image"]), batch["label"]


class ByAttribute(Plain):
    def logits_labels(self, batch):
        return self(batch.image), batch.label


class IndexFirst(Plain):
    def logits_labels(self, batch):
        return self(batch[1]), batch[2]


class LabelsFromOne(Plain):
    def logits_labels(self, batch):
        return self(batch[0]), batch[1] - 1


class CompiledPart(Plain):
    def __init__(self):
        super().__init__()
        self.net = torch.compile(self.net, backend="eager")


class CompiledInPlace(Plain):
    def __init__(self):
        super().__init__()
        self.net.compile(backend="eager")
