"""Pixels that a data set marks as neither object nor background do not count beside masks."""

import pytest
import torch
from audit_cases import SMALL, data, quick_audit, trainer
from sklearn.metrics import average_precision_score
from torch.utils.data import DataLoader

from libragrad_lightning import explain, metrics
from libragrad_lightning.callbacks import Samples
from libragrad_lightning.demo import ImageClassifier

pytestmark = pytest.mark.rotating

BESIDE_MASKS = {
    "segmentation_ap": metrics.SegmentationAP,
    "segmentation_max_f1": metrics.SegmentationMaxF1,
    "energy_inside": metrics.EnergyInside,
    "pointing_game": metrics.PointingGame,
    "relevance_rank_accuracy": metrics.RelevanceRankAccuracy,
    "mask_iou": metrics.MaskIoU,
    "pixel_accuracy": metrics.PixelAccuracy,
}
OTHERS = ["completeness_error", "srg", "degenerate_rate"]
COUNT, BATCH = 12, 4


def batches(*ignored):
    """Batches as dictionaries, each with pixels to ignore or without the key."""
    images, labels, masks = data(BATCH * len(ignored)).tensors
    for i, ignore in enumerate(ignored):
        rows = slice(BATCH * i, BATCH * (i + 1))
        batch = {"image": images[rows], "label": labels[rows], "mask": masks[rows]}
        yield batch if ignore is None else batch | {"ignore": ignore}


def loader(*ignored):
    # Batches are made beforehand, so that some may have a key that others lack.
    return DataLoader(list(batches(*ignored)), batch_size=None)


def left_half(share=0.5):
    """Ignore the left part of the images, half of the object with it."""
    ignore = torch.zeros(BATCH, 32, 32, dtype=torch.bool)
    ignore[:, :, : int(32 * share)] = True
    return ignore


def nothing():
    return torch.zeros(BATCH, 32, 32, dtype=torch.bool)


@pytest.fixture
def module():
    torch.manual_seed(0)
    return ImageClassifier("vit_tiny_patch16_224", SMALL, num_classes=4)


def validated(tmp_path, module, loaders, **kwargs):
    names = [*BESIDE_MASKS, *OTHERS]
    callback = quick_audit(**({"max_samples": COUNT, "num_images": 0, "metrics": names} | kwargs))
    trainer(tmp_path, [callback], logger=False).validate(module, loaders, verbose=False)
    return callback.history[-1].values


def test_a_fit_measures_what_the_metrics_say_of_the_pixels_that_count(tmp_path, module):
    ignore = left_half()
    callback = quick_audit(max_samples=COUNT, num_images=0, metrics=list(BESIDE_MASKS))
    run = trainer(tmp_path, [callback], logger=False, max_epochs=1, enable_checkpointing=False)
    run.fit(module, loader(None, None), loader(ignore, ignore, ignore))
    (record,) = callback.history
    images, _, masks = data(COUNT).tensors
    everywhere = ignore.repeat(3, 1, 1)
    for rules in ("plain", "libra"):
        maps = explain(module, images, rules=rules, batch_size=BATCH).heatmap((32, 32))
        for name, metric in BESIDE_MASKS.items():
            expected = float(metric()(maps, masks, everywhere))
            assert record.values[f"{name}/{rules}"] == pytest.approx(expected, rel=1e-4), name
        right_halves = zip(masks[:, :, 16:].flatten(1), maps[:, :, 16:].flatten(1), strict=True)
        precisions = [average_precision_score(mask, scores) for mask, scores in right_halves]
        assert record.values[f"segmentation_ap/{rules}"] == pytest.approx(
            sum(precisions) / COUNT, rel=1e-4
        )


def test_ignoring_nothing_is_the_same_as_having_nothing_to_ignore(tmp_path, module):
    without = validated(tmp_path, module, loader(None, None, None))
    assert validated(tmp_path, module, loader(nothing(), nothing(), nothing())) == without
    with_ignore = validated(tmp_path, module, loader(left_half(), left_half(), left_half()))
    for key, value in without.items():
        beside_masks = key.partition("/")[0] in BESIDE_MASKS
        assert (with_ignore[key] != value) == beside_masks, key


@pytest.mark.parametrize(
    ("some", "all_of_them"),
    [
        ((left_half(), None, left_half(0.25)), (left_half(), nothing(), left_half(0.25))),
        ((None, None, left_half()), (nothing(), nothing(), left_half())),
    ],
)
def test_batches_without_the_key_ignore_nothing(tmp_path, module, some, all_of_them):
    found = validated(tmp_path, module, loader(*some))
    assert found == validated(tmp_path, module, loader(*all_of_them))
    assert found != validated(tmp_path, module, loader(None, None, None))


def test_each_of_two_loaders_has_its_own_pixels_to_ignore(tmp_path, module):
    marked, plain = loader(left_half(), left_half(), left_half()), loader(None, None, None)
    alone = [validated(tmp_path, module, one) for one in (marked, plain)]
    for index in (0, 1):
        found = validated(tmp_path, module, [marked, plain], dataloader_idx=index)
        assert found == alone[index]


def test_panels_give_the_average_precision_of_the_pixels_that_count(tmp_path, module, panels):
    callback = quick_audit(max_samples=2, num_images=2, metrics=["segmentation_ap"])
    run = trainer(tmp_path, [callback])
    ignore = left_half()
    ignore[1] = ignore[1].T.clone()  # the upper half
    run.validate(module, loader(ignore), verbose=False)
    images, _, masks = (tensor[:2] for tensor in data(BATCH).tensors)
    maps = explain(module, images, rules="libra").heatmap((32, 32))
    for panel, mask, scores, left_out in zip(panels, masks, maps, ignore[:2], strict=True):
        expected, other = (
            f"AP {average_precision_score(mask[~away], scores[~away]):.2f}"
            for away in (left_out, left_out.T)
        )
        assert panel.notes["libra"].startswith(f"{expected}, amount ")
        assert other != expected


def test_a_users_function_may_say_what_to_ignore(tmp_path, module):
    def unpack(batch):
        return Samples(batch["image"], batch["label"], batch["mask"], left_half())

    found = validated(tmp_path, module, loader(None, None, None), unpack=unpack)
    expected = validated(tmp_path, module, loader(left_half(), left_half(), left_half()))
    assert found == expected
