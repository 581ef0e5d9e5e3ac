"""Panels of audits with prompts have rows for each prompt, with its own maps."""

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from prompt_models import TOKENIZER
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_prompts_in_audits import (
    BATCH,
    CAPTIONS,
    CLASSES,
    COUNT,
    Captions,
    Prompts,
    Written,
    example,
)
from torch.utils.data import DataLoader

from libragrad_lightning import explain
from libragrad_lightning.audit import Samples
from libragrad_lightning.callbacks import LibraGradAudit, Pictures
from libragrad_lightning.prompts import text_prompts
from libragrad_lightning.reporting import panels

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def drawn(monkeypatch):
    """What panels are drawn of: targets, the mask of the image, and the caption."""
    found = []

    def draw(image, targets, mask, caption, column_size, placement):
        found.append((list(targets), mask, caption))
        return torch.zeros(3, 1, 1)

    monkeypatch.setattr(panels, "share_panel", draw)
    return found


def audited(tmp_path, module, texts=False, num_images=3, **arguments):
    names = {"metrics": ["relative_completeness_error"], "pictures": Pictures(targets=3)}
    callback = LibraGradAudit(
        num_images=num_images, print_summary=False, max_samples=COUNT, **(names | arguments)
    )
    trainer = L.Trainer(
        accelerator="cpu", logger=TensorBoardLogger(tmp_path), callbacks=[callback],
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    samples = [example(i) for i in range(COUNT)]
    if not texts:
        samples = [{k: v for k, v in sample.items() if k != "caption"} for sample in samples]
    trainer.validate(module, DataLoader(samples, 4), verbose=False)
    return callback


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [Prompts, Written])
def test_prompts_for_classes_have_rows(tmp_path, drawn, kind):
    module = kind()
    names = None if kind is Prompts else CLASSES
    audited(tmp_path, module, target="label", pictures=Pictures(targets=3, class_names=names))
    zero_shot = Prompts()
    zero_shot.clip.load_state_dict(module.clip.state_dict())
    prompts = zero_shot.eval().zero_shot
    scores = prompts(BATCH)
    assert len(drawn) == 3
    for i, (targets, mask, _) in enumerate(drawn):
        order = scores[i].argsort(descending=True).tolist()
        classes = [i, *(c for c in order if c != i)][:3]
        chances = scores[i].softmax(0)
        titles = [f"{CLASSES[c]} {chances[c]:.2f}" for c in classes]
        assert [target.title for target in targets] == titles
        assert torch.equal(mask, example(i)["mask"])
        for number, target in zip(classes, targets, strict=True):
            for rules in ("plain", "libra"):
                image = BATCH[i : i + 1]
                expected = explain(prompts, image, target=number, task="multiclass", rules=rules)
                close(target.maps[rules], expected.attribution[0])
            assert target.mask is None


@pytest.mark.parametrize("texts", [True, False])
def test_captions_have_rows_those_that_fit_best_after_the_own_one(tmp_path, drawn, texts):
    module = Captions()
    audited(tmp_path, module, texts)
    one_by_one = [text_prompts(module.clip, TOKENIZER, [text]) for text in CAPTIONS]
    scores = torch.cat([prompts(BATCH) for prompts in one_by_one], 1)
    for i, (targets, _, _) in enumerate(drawn):
        order = scores[i].argsort(descending=True).tolist()
        chosen = [i, *(c for c in order if c != i)][:3]
        names = [CAPTIONS[c] if texts else f"text of image {c}" for c in chosen]
        titles = [f"{n} {scores[i, c]:.2f}" for n, c in zip(names, chosen, strict=True)]
        assert [target.title for target in targets] == titles
        for c, target in zip(chosen, targets, strict=True):
            expected = explain(one_by_one[c], BATCH[i : i + 1], reward="logit")
            close(target.maps["libra"], expected.attribution[0])


def class_masks(batch):
    masks = torch.zeros(len(batch["label"]), len(CLASSES), 64, 64, dtype=torch.bool)
    masks[torch.arange(len(masks)), batch["label"]] = batch["mask"]
    masks[:, 3, :9, :9] = True
    return Samples(None, batch["label"], masks)


def test_prompts_with_masks_show_them_and_are_measured_by_their_own(tmp_path, drawn):
    metrics = ["segmentation_ap"]
    (found,) = audited(tmp_path, Prompts(), unpack=class_masks, target=3, metrics=metrics).history
    for targets, mask, _ in drawn:
        assert mask is None
        for target in targets:
            name = CLASSES.index(target.title.split()[0])
            assert target.mask[:9, :9].all() == (name == 3)
    corner = torch.zeros(4, 64, 64, dtype=torch.bool)
    corner[:, :9, :9] = True

    def corners(batch):
        own = batch["mask"] & (batch["label"] == 3)[:, None, None]
        return Samples(None, batch["label"], corner | own)

    (expected,) = audited(tmp_path, Prompts(), unpack=corners, target=3, metrics=metrics).history
    for rules in ("plain", "libra"):
        key = f"segmentation_ap/{rules}"
        assert found.values[key] == expected.values[key]


def test_masks_of_other_classes_get_a_sentence(tmp_path):
    def three(batch):
        return Samples(None, batch["label"], class_masks(batch).masks[:, :3])

    with pytest.raises(MisconfigurationException, match=r"masks of 3 classes for 4.*`unpack`"):
        audited(tmp_path, Prompts(), unpack=three)


def test_real_panels_are_drawn(tmp_path):
    audited(tmp_path, Captions(), texts=True, num_images=1)
    (folder,) = (tmp_path / "lightning_logs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    (event,) = events.Images("audit/image_000")
    assert event.width > 2 * 192
    assert event.height > 4 * 192  # the image, and below it three texts
