"""Audits of steps that compare images with prompts for classes, or with their own captions."""

import lightning as L
import open_clip
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from prompt_models import TOKENIZER, TextTower, image_tower, randomized
from torch import nn
from torch.utils.data import DataLoader

from libragrad_lightning import explain
from libragrad_lightning.callbacks import LibraGradAudit
from libragrad_lightning.prompts import text_prompts

pytestmark = [pytest.mark.rotating, pytest.mark.filterwarnings("ignore")]

CLASSES = ("cat", "dog", "bird", "bus")
CAPTIONS = (
    "a cat",
    "two dogs",
    "birds in the sky",
    "a red bus",
    "a street",
    "snow",
    "a tree",
    "rain",
)
COUNT = 8


def example(i, size=64):
    generator = torch.Generator().manual_seed(i)
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[size // 4 : size // 2, size // 4 :] = True
    return {
        "image": torch.randn(3, size, size, generator=generator),
        "label": i % len(CLASSES),
        "tokens": TOKENIZER([CAPTIONS[i]])[0],
        "caption": CAPTIONS[i],
        "index": i,
        "mask": mask,
    }


class Step(L.LightningModule):
    """A tiny CLIP model of open_clip."""

    def __init__(self):
        super().__init__()
        self.clip = randomized("open_clip-vit")
        tokens = TOKENIZER([f"a photo of a {name}" for name in CLASSES])
        self.register_buffer("class_tokens", tokens, persistent=False)

    def validation_step(self, batch, _):
        self.log("val_loss", self.step(batch))


class Prompts(Step):
    def __init__(self):
        super().__init__()
        self.zero_shot = text_prompts(self.clip, TOKENIZER, CLASSES, templates=["a photo of a {}"])

    def step(self, batch):
        return F.cross_entropy(self.zero_shot(batch["image"]), batch["label"])


class Accuracy(Prompts):
    def step(self, batch):
        return (self.zero_shot(batch["image"]).argmax(1) == batch["label"]).float().mean()


class Written(Step):
    """Encodes the prompts of the classes in every step."""

    def step(self, batch):
        features = F.normalize(self.clip.encode_image(batch["image"]), dim=-1)
        texts = F.normalize(self.clip.encode_text(self.class_tokens), dim=-1)
        return F.cross_entropy(self.clip.logit_scale.exp() * features @ texts.T, batch["label"])


class Once(Step):
    """Encodes the prompts of the classes once per epoch."""

    def on_validation_epoch_start(self):
        self.texts = self.clip.encode_text(self.class_tokens, normalize=True)

    def step(self, batch):
        features = self.clip.encode_image(batch["image"], normalize=True)
        return F.cross_entropy(
            self.clip.logit_scale.exp() * features @ self.texts.T, batch["label"]
        )


class Captions(Step):
    """Compares images with the captions of their batch."""

    def step(self, batch):
        features, texts, scale = self.clip(batch["image"], batch["tokens"])
        scores, own = scale * features @ texts.T, torch.arange(len(features))
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


class ClipLoss(Step):
    def __init__(self):
        super().__init__()
        self.loss = open_clip.ClipLoss()

    def step(self, batch):
        return self.loss(*self.clip(batch["image"], batch["tokens"]))


class OfTransformers(Step):
    def __init__(self):
        super().__init__()
        self.clip = randomized("transformers-clip")

    def step(self, batch):
        images = batch["image"][..., ::2, ::2]
        output = self.clip(input_ids=batch["tokens"] % 54, pixel_values=images)
        own = torch.arange(len(images))
        by_image = F.cross_entropy(output.logits_per_image, own)
        return (by_image + F.cross_entropy(output.logits_per_text, own)) / 2


class Apart(Step):
    """Shows the captions to a method of their own, which the images never meet."""

    def __init__(self):
        super().__init__()
        self.zero_shot = text_prompts(self.clip, TOKENIZER, CLASSES)

    def step(self, batch):
        features = self.clip.encode_image(batch["image"], normalize=True)
        texts = self.clip.encode_text(batch["tokens"], normalize=True)
        return F.cross_entropy(100 * features @ texts.T, torch.arange(len(features)))


class ApartTokenized(Apart):
    """Turns captions into tokens itself."""

    def step(self, batch):
        texts = self.clip.encode_text(TOKENIZER(batch["caption"]), normalize=True)
        features = self.clip.encode_image(batch["image"], normalize=True)
        return F.cross_entropy(100 * features @ texts.T, torch.arange(len(features)))


class ApartRecall(Apart):
    """Has no loss."""

    def step(self, batch):
        features = self.clip.encode_image(batch["image"], normalize=True)
        texts = self.clip.encode_text(batch["tokens"], normalize=True)
        return ((features @ texts.T).argmax(1) == torch.arange(len(features))).float().mean()


class ApartTowers(L.LightningModule):
    """Has two plain modules, the text tower with blocks that no function is watched in."""

    def __init__(self):
        super().__init__()
        self.images, self.texts = image_tower(), TextTower()
        self.zero_shot = text_prompts((self.images, self.texts), TOKENIZER, CLASSES)

    def validation_step(self, batch, _):
        scores = self.images(batch["image"]) @ self.texts(batch["tokens"]).T
        self.log("val_loss", F.cross_entropy(scores, torch.arange(len(scores))))


class ApartIndices(ApartTowers):
    """Has a batch that numbers its images."""

    def validation_step(self, batch, _):
        scores = self.images(batch["image"]) @ self.texts(batch["tokens"]).T
        self.log("val_loss", F.cross_entropy(scores, batch["index"] % len(scores)))


class Sigmoid(Apart):
    """The loss of SigLIP."""

    def step(self, batch):
        features, texts, scale = self.clip(batch["image"], batch["tokens"])
        signs = 2 * torch.eye(len(features)) - 1
        return -F.logsigmoid(signs * (scale * features @ texts.T)).mean()


class Towers(L.LightningModule):
    """Trains two plain modules on captions, and is asked about classes."""

    def __init__(self):
        super().__init__()
        self.images, self.texts = image_tower(), TextTower()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.zero_shot = text_prompts((self.images, self.texts), TOKENIZER, CLASSES)
        self.seen = []

    def training_step(self, batch, _):
        features = F.normalize(self.images(batch["image"]), dim=-1)
        scores = self.scale.exp() * features @ F.normalize(self.texts(batch["tokens"]), dim=-1).T
        return F.cross_entropy(scores, torch.arange(len(scores)))

    def validation_step(self, batch, _):
        scores = self.zero_shot(batch["image"])
        self.seen.append(scores.detach().clone())
        self.log("val_loss", F.cross_entropy(scores, batch["label"]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def audited(
    tmp_path, module, size=64, fit=False, audit=True, without=(), batch_size=4, **arguments
):
    names = {"metrics": ["segmentation_ap", "relative_completeness_error"], "max_samples": COUNT}
    callback = LibraGradAudit(num_images=0, print_summary=False, **(names | arguments))
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, callbacks=[callback] if audit else [],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    samples = [example(i, size) for i in range(COUNT)]
    samples = [{k: v for k, v in sample.items() if k not in without} for sample in samples]
    loader = DataLoader(samples, batch_size)
    if fit:
        trainer.fit(module, loader, loader)
    else:
        trainer.validate(module, loader, verbose=False)
    return callback


def maps(callback, rules="libra"):
    found = callback.state_dict()["history"]["last"]["maps"][rules]
    return torch.stack([found[key] for key in sorted(found)])


BATCH = torch.stack([example(i)["image"] for i in range(COUNT)])


@pytest.mark.parametrize("kind", [Prompts, Accuracy, Written, Once])
def test_prompts_for_classes_are_followed(tmp_path, kind):
    module = kind()
    callback = audited(tmp_path, module)
    prompts = Prompts()
    prompts.clip.load_state_dict(module.clip.state_dict())
    expected = explain(prompts.zero_shot, BATCH, task="multiclass")
    torch.testing.assert_close(maps(callback), expected.attribution, rtol=1e-3, atol=1e-5)
    values = callback.history[-1].values
    assert values["relative_completeness_error/libra"] < 1e-5
    assert values["relative_completeness_error/plain"] > 1e-2
    labels = torch.arange(COUNT) % len(CLASSES)
    right = (prompts.zero_shot(BATCH).argmax(1) == labels).float().mean()
    assert values["accuracy"] == pytest.approx(float(right))


@pytest.mark.parametrize("kind", [Captions, ClipLoss])
def test_images_are_explained_by_their_own_captions(tmp_path, kind):
    module = kind()
    callback = audited(tmp_path, module)
    own = [text_prompts(module.clip, TOKENIZER, [caption]) for caption in CAPTIONS]
    expected = [explain(p, BATCH[i : i + 1], reward="logit") for i, p in enumerate(own)]
    expected = torch.cat([e.attribution for e in expected])
    torch.testing.assert_close(maps(callback), expected, rtol=1e-3, atol=1e-5)
    values = callback.history[-1].values
    assert values["relative_completeness_error/libra"] < 1e-5
    assert "accuracy" not in values
    assert "mean_absolute_error" not in values


def test_captions_of_transformers_are_followed(tmp_path):
    module = OfTransformers()
    values = audited(tmp_path, module, without=("mask",)).history[-1].values
    assert values["relative_completeness_error/libra"] < 1e-5


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Apart, r"show both to one module.*or compare images with.*text_prompts.*pass `forward`"),
        (Sigmoid, r"depend on the other images.*as those of a contrastive loss.*pass `forward`"),
    ],
)
def test_captions_that_cannot_be_followed_are_named_and_prompts_work(tmp_path, kind, sentence):
    with pytest.raises(MisconfigurationException, match=sentence):
        audited(tmp_path, kind())
    callback = audited(
        tmp_path, kind(), forward=lambda module, images: module.zero_shot(images), task="multiclass"
    )
    assert callback.history[-1].values["relative_completeness_error/libra"] < 1e-5
    audited(tmp_path, kind(), forward="zero_shot", task="multiclass")


@pytest.mark.parametrize("batch_size", [4, COUNT])
@pytest.mark.parametrize("kind", [Apart, ApartTokenized, ApartRecall, ApartTowers, ApartIndices])
def test_captions_shown_to_another_module_are_noticed_in_the_first_batch(
    tmp_path, kind, batch_size
):
    size = 32 if issubclass(kind, ApartTowers) else 64
    sentence = r"compares the images.*show both to one module.*text_prompts.*pass `forward`"
    with pytest.raises(MisconfigurationException, match=sentence):
        audited(tmp_path, kind(), size, batch_size=batch_size, max_samples=4)
    callback = audited(
        tmp_path, kind(), size, batch_size=batch_size, forward="zero_shot", task="multiclass"
    )
    assert callback.history[-1].values["relative_completeness_error/libra"] < 1e-5


@pytest.mark.parametrize("kind", [Prompts, Accuracy, Written, Once])
def test_as_many_classes_as_images_are_no_captions(tmp_path, kind):
    callback = audited(tmp_path, kind(), batch_size=len(CLASSES), max_samples=len(CLASSES))
    assert "accuracy" in callback.history[-1].values


def test_plain_towers_under_training_are_asked_with_their_weights_of_then(tmp_path):
    torch.manual_seed(1)
    module = Towers()
    callback = audited(tmp_path, module, 32, fit=True)
    assert [r.values["relative_completeness_error/libra"] < 1e-4 for r in callback.history] == [
        True,
        True,
    ]
    now = text_prompts((module.images, module.texts), TOKENIZER, CLASSES).eval()
    images = torch.stack([example(i, 32)["image"] for i in range(4, COUNT)])
    torch.testing.assert_close(module.seen[-1], now(images).detach())
    assert not torch.allclose(module.seen[-3], module.seen[-1])


def test_an_audit_of_prompts_does_not_change_training(tmp_path):
    weights = []
    for audit in (False, True):
        torch.manual_seed(1)
        module = Towers()
        L.seed_everything(2)
        audited(tmp_path, module, 32, fit=True, audit=audit)
        weights.append(module.state_dict())
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())
