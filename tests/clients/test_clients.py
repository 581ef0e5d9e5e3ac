"""Modules and batches of libraries that know nothing of this one, with the audit as one more line.

They need the packages of the extra `clients`: `pytest -m clients`.
"""

import copy

import lightning as L
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, Dataset

from libragrad_lightning.callbacks import LibraGradAudit, Pictures

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]
CLASSES, COUNT, SIDE = 4, 8, 32
SMALL = {"img_size": SIDE, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}


class Items(Dataset):
    """Items made by a function of their number."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        torch.manual_seed(i)
        return self.make(i)


def image(channels=3):
    return torch.randn(channels, SIDE, SIDE)


def run(tmp_path, module, make, collate=None, trainer=L.Trainer, **arguments):
    """Fit with an audit, and return its values; without one, the weights must be the same."""
    weights = []
    for audited, module in ((True, copy.deepcopy(module)), (False, module)):  # noqa: B020
        L.seed_everything(1, verbose=False)
        callback = LibraGradAudit(
            max_samples=4,
            num_images=2,
            pictures=Pictures(size=32),
            print_summary=False,
            **arguments,
        )
        process = trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            callbacks=[callback] if audited else [],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=tmp_path,
        )
        loader = DataLoader(Items(make), 4, collate_fn=collate)
        process.fit(module, loader, loader)
        weights.append([p.detach().clone() for p in module.parameters()])
        if audited:
            values = callback.history[-1].values
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    return values


def check(values):
    assert values["relative_completeness_error/libra"] < 1e-3
    assert np.isfinite(list(values.values())).all()


def with_labels(**more):
    return lambda i: {"image": image(), "label": i % CLASSES, **more}


def test_torchgeo_classifies_with_thirteen_bands(tmp_path):
    pytest.importorskip("torchgeo")
    from torchgeo.trainers import ClassificationTask

    module = ClassificationTask(model="resnet18", in_channels=13, num_classes=CLASSES, lr=1e-4)
    values = run(tmp_path, module, lambda i: {"image": image(13), "label": i % CLASSES})
    check(values)
    assert "accuracy" in values


def test_torchgeo_knows_several_labels(tmp_path):
    pytest.importorskip("torchgeo")
    from torchgeo.trainers import ClassificationTask

    kwargs = {"task": "multilabel", "num_labels": CLASSES, "loss": "bce"}
    module = ClassificationTask(model="resnet18", in_channels=3, **kwargs)
    labels = [torch.tensor([1, 0, 1, 0]), torch.tensor([0, 1, 1, 1])]
    values = run(tmp_path, module, lambda i: {"image": image(), "label": labels[i % 2]})
    check(values)


def test_torchgeo_predicts_a_quantity(tmp_path):
    pytest.importorskip("torchgeo")
    from torchgeo.trainers import RegressionTask

    module = RegressionTask(model="resnet18", in_channels=3, num_outputs=1)
    values = run(tmp_path, module, lambda i: {"image": image(), "label": torch.tensor(i / 7)})
    check(values)
    assert "mean_absolute_error" in values
    assert "srg/libra" not in values


class Wrapped(L.LightningModule):
    """What people write around a network of a library."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)

    def scores(self, batch):
        return self(batch["image"])

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.scores(batch), batch["label"])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self.scores(batch), batch["label"]), batch_size=4)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-4)


@pytest.mark.parametrize("kind", ["ViT", "DenseNet"])
def test_monai_has_tensors_of_its_own(tmp_path, kind):
    pytest.importorskip("monai")
    from monai.data import list_data_collate
    from monai.networks import nets
    from monai.transforms import Compose, EnsureTyped, ScaleIntensityd

    if kind == "ViT":
        size = {"hidden_size": 48, "mlp_dim": 96, "num_layers": 2, "num_heads": 3}
        net = nets.ViT(3, (SIDE, SIDE), (8, 8), spatial_dims=2, classification=True, num_classes=4,
                       post_activation="", **size)  # fmt: skip
        module = Wrapped(nn.Sequential(net, First()))
    else:
        module = Wrapped(nets.DenseNet(2, 3, CLASSES, block_config=(2, 2), init_features=16))
    keys = ["image", "mask"]
    change = Compose([ScaleIntensityd("image"), EnsureTyped(keys, track_meta=True)])

    def make(i):
        mask = np.zeros((1, SIDE, SIDE), np.float32)
        mask[:, 8:24, 8:24] = 1
        return change({"image": image().numpy(), "mask": mask, "label": i % CLASSES})

    values = run(tmp_path, module, make, list_data_collate)
    check(values)
    assert "segmentation_ap/libra" in values


class First(nn.Module):
    def forward(self, outputs):
        return outputs[0]


def test_kornia_normalizes_on_the_device(tmp_path):
    pytest.importorskip("kornia")
    import kornia

    class Module(Wrapped):
        def __init__(self):
            super().__init__(timm.create_model("vit_tiny_patch16_224", num_classes=4, **SMALL))
            self.normalize = kornia.augmentation.Normalize(
                torch.full((3,), 0.4), torch.full((3,), 0.3)
            )
            self.augment = kornia.augmentation.RandomHorizontalFlip(p=0.5)

        def scores(self, batch):
            x = self.normalize(batch["image"])
            return self(self.augment(x) if self.training else x)

    values = run(tmp_path, Module(), with_labels())
    check(values)


def test_kornia_has_a_vision_transformer(tmp_path):
    pytest.importorskip("kornia")
    from kornia.models.vit import VisionTransformer

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = VisionTransformer(SIDE, 8, 3, embed_dim=48, depth=2, num_heads=3)
            self.head = nn.Linear(48, CLASSES)

        def forward(self, x):
            return self.head(self.encoder(x)[:, 0])

    check(run(tmp_path, Wrapped(Classifier()), with_labels()))


@pytest.mark.parametrize("kind", ["ViT", "Dinov2", "Swin"])
def test_transformers_are_given_keywords_and_return_a_loss(tmp_path, kind):
    pytest.importorskip("transformers")
    import transformers

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            size = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
            if kind == "Swin":
                size = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
            config = getattr(transformers, f"{kind}Config")(
                image_size=SIDE, patch_size=4, num_labels=CLASSES, **size
            )
            self.model = getattr(transformers, f"{kind}ForImageClassification")(config)

        def training_step(self, batch, batch_idx):
            return self.model(**batch).loss

        def validation_step(self, batch, batch_idx):
            outputs = self.model(**batch)
            self.log("val_loss", outputs.loss, batch_size=4)
            self.log(
                "val_acc",
                (outputs.logits.argmax(-1) == batch["labels"]).float().mean(),
                batch_size=4,
            )

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-4)

    values = run(tmp_path, Module(), lambda i: {"pixel_values": image(), "labels": i % CLASSES})
    check(values)
    assert "accuracy" in values


def test_torch_uncertainty_has_routines(tmp_path):
    pytest.importorskip("torch_uncertainty")
    from torch_uncertainty.routines import ClassificationRoutine

    model = timm.create_model("vit_tiny_patch16_224", num_classes=4, **SMALL)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    module = ClassificationRoutine(model, CLASSES, nn.CrossEntropyLoss(), optim_recipe=optimizer)
    check(run(tmp_path, module, lambda i: (image(), i % CLASSES)))


def test_metric_learning_has_embeddings(tmp_path):
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning import losses

    class Module(Wrapped):
        def __init__(self):
            super().__init__(timm.create_model("vit_tiny_patch16_224", num_classes=16, **SMALL))
            self.loss = losses.TripletMarginLoss()

        def training_step(self, batch, batch_idx):
            return self.loss(self(batch["image"]), batch["label"])

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.loss(self(batch["image"]), batch["label"]), batch_size=4)

    with pytest.raises(MisconfigurationException, match=r"embeddings.*`forward`"):
        run(tmp_path, Module(), lambda i: {"image": image(), "label": i % 2})

    def prototypes(module, images):
        return F.normalize(module(images)) @ torch.eye(16)[:, :4]

    check(run(tmp_path, Module(), lambda i: {"image": image(), "label": i % 2}, forward=prototypes))


def test_lightly_is_of_the_other_package_of_lightning(tmp_path):
    pytest.importorskip("lightly")
    import pytorch_lightning
    from lightly.utils.benchmarking import LinearClassifier

    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL)
    module = LinearClassifier(net, 4, 1, feature_dim=48, num_classes=CLASSES, topk=(1,))
    values = run(
        tmp_path, module, lambda i: (image(), i % CLASSES), trainer=pytorch_lightning.Trainer
    )
    check(values)
    assert "accuracy" in values


def test_lightly_compares_two_views(tmp_path):
    pytest.importorskip("lightly")
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    class Module(Wrapped):
        def __init__(self):
            super().__init__(timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL))
            self.head, self.loss = SimCLRProjectionHead(48, 48, 16), NTXentLoss()

        def step(self, batch):
            first, second = (self.head(self(view)) for view in batch[0])
            return self.loss(first, second)

        def training_step(self, batch, batch_idx):
            return self.step(batch)

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.step(batch), batch_size=4)

    with pytest.raises(MisconfigurationException, match="pass `forward`"):
        run(tmp_path, Module(), lambda i: ([image(), image()], i % CLASSES))
