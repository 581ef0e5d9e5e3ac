import contextlib
import io
import math
import pickle

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from libragrad_lightning.metrics import CocoMaskAP

torch.set_num_threads(1)


def images(count=12, side=24, seed=0):
    """Return maps that find the first of two squares more or less well, and the squares."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, 2, side, side, dtype=torch.bool)
    masks[:, 0, 2:14, 3:15] = True
    masks[:, 1, 16:22, 14:22] = True
    shift = torch.randint(-3, 4, (count, 2), generator=generator).tolist()
    attribution = torch.stack(
        [mask.double().roll(s, (0, 1)) for mask, s in zip(masks[:, 0], shift, strict=True)]
    )
    attribution += 0.3 * torch.rand(attribution.shape, generator=generator)
    score = torch.rand(count, generator=generator, dtype=torch.float64)
    label = torch.randint(3, (count,), generator=generator)
    mask_label = torch.stack([label, (label + torch.arange(count) % 2) % 3], dim=1)
    return {
        "attribution": attribution,
        "mask": masks,
        "score": score,
        "label": label,
        "mask_label": mask_label,
    }


def part(batch, index):
    return {name: value[index] for name, value in batch.items()}


def pycocotools_ap(batch):
    """Return the first of COCO's twelve numbers by its own route over a results file."""
    truth, results = [], []
    for image in range(len(batch["mask"])):
        a = batch["attribution"][image].numpy()
        segmentation = rle.encode(np.asfortranarray(a > a.mean(), dtype=np.uint8))
        results.append({
            "image_id": image,
            "category_id": batch["label"][image].item(),
            "segmentation": segmentation,
            "score": batch["score"][image].item(),
        })  # fmt: skip
        for mask, label in zip(batch["mask"][image], batch["mask_label"][image], strict=True):
            segmentation = rle.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8))
            truth.append({
                "id": len(truth) + 1,
                "image_id": image,
                "category_id": label.item(),
                "segmentation": segmentation,
                "area": int(mask.sum()),
                "iscrowd": 0,
            })  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        height, width = batch["mask"].shape[2:]
        coco.dataset = {
            "images": [
                {"id": i, "height": height, "width": width} for i in range(len(batch["mask"]))
            ],
            "categories": [{"id": i} for i in range(3)],
            "annotations": truth,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0], evaluation.stats[1]


def test_equals_pycocotools():
    batch = images()
    expected, expected_50 = pycocotools_ap(batch)
    assert 0.05 < expected < expected_50 < 0.95
    metric, at_half = CocoMaskAP(), CocoMaskAP(iou_thresholds=[0.5])
    for index in (slice(0, 5), slice(5, 12)):
        metric.update(**part(batch, index))
        at_half.update(**part(batch, index))
    assert metric.compute().item() == pytest.approx(expected, abs=1e-12)
    assert at_half.compute().item() == pytest.approx(expected_50, abs=1e-12)


def test_copies_reset_and_half_precision(capsys):
    batch = images()
    metric = CocoMaskAP()
    value = metric(**batch)
    assert metric.compute() == value
    for copy in (metric.clone(), pickle.loads(pickle.dumps(metric))):
        copy.half()
        assert copy.compute() == value
        copy.reset()
        assert copy.num_samples == 0
        with pytest.warns(UserWarning, match="before the ``update`` method"):
            assert copy.compute().isnan()
    halves = [CocoMaskAP(), CocoMaskAP()]
    for half, index in zip(halves, (slice(0, 5), slice(5, 12)), strict=True):
        half.update(**part(batch, index))
    halves[0].merge_state(halves[1])
    assert halves[0].compute().item() == pytest.approx(value.item(), abs=1e-12)
    assert capsys.readouterr().out == ""


def test_predictions_are_ranked_by_the_last_digit_of_their_scores():
    batch = images()
    order = torch.randperm(len(batch["score"]), generator=torch.Generator().manual_seed(1)).double()
    ranked, close, equal = (
        float(CocoMaskAP()(**(batch | {"score": score})))
        for score in (order, 0.5 + 1e-12 * order, torch.full_like(order, 0.5))
    )
    assert close == ranked != equal


def test_the_state_is_much_smaller_than_the_masks():
    batch = images(side=200)
    metric = CocoMaskAP()
    batch["attribution"] = batch["mask"][:, 0].double()
    metric.update(**batch)
    held = sum(state.nbytes for name in metric._row_likes for state in getattr(metric, name))
    assert held < batch["mask"].numel() / 100


def test_images_that_cannot_be_scored_are_counted_by_reason():
    batch = images()
    batch["mask"][0] = False
    batch["attribution"][1] = 2
    batch["attribution"][2, 0, 0] = math.nan
    batch["score"][3] = math.inf
    metric, reference = CocoMaskAP(), CocoMaskAP()
    value = metric(**batch)
    assert (metric.num_skipped, metric.num_constant, metric.num_invalid) == (1, 1, 2)
    assert metric.num_samples == 8
    assert value == reference(**part(batch, slice(4, None)))
    nothing = CocoMaskAP()
    assert nothing(**part(batch, slice(0, 4))).isnan()


def test_predictions_in_an_ignored_region_do_not_count():
    attribution = torch.zeros(2, 8, 8)
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[:, :3, :3] = True
    attribution[0, :3, :3] = 1
    attribution[1, 5:, 5:] = 1  # found the wrong place, and is sure of it
    ignore = torch.zeros_like(mask)
    ignore[1, 4:, 4:] = True
    score = torch.tensor([0.5, 0.9])
    strict = CocoMaskAP()(attribution, mask, score).item()
    lenient = CocoMaskAP()(attribution, mask, score, ignore=ignore).item()
    assert strict == pytest.approx(51 / 101 * 0.5)
    assert lenient == pytest.approx(51 / 101)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": torch.zeros(3)}, r"`score` to have shape \[2\] to match `attribution` but got"),
        ({"score": torch.zeros(2).int()}, r"`score` to be a floating point tensor"),
        ({"label": torch.zeros(2)}, r"`label` to be an integer tensor of class indices"),
        ({"label": torch.zeros(1).int()}, r"`label` to have shape \[2\] to match `mask`"),
        ({"mask_label": torch.zeros(2).int()}, r"`mask_label` to have shape \[2, 2\] to match"),
        ({"mask": torch.zeros(2, 24, 24)}, r"`mask` to be a boolean tensor"),
        ({"ignore": torch.zeros(2, 24, 24)}, r"`ignore` to be a boolean tensor"),
        ({"ignore": torch.zeros(2, 24, 9).bool()}, r"`ignore` to have shape \[2, 24, 24\]"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=f"Expected argument {message}"):
        CocoMaskAP().update(**(images(count=2) | changes))


@pytest.mark.parametrize("thresholds", [[], [0.0], [0.5, 1.5]])
def test_bad_thresholds(thresholds):
    with pytest.raises(ValueError, match=r"`iou_thresholds` to be numbers in \(0, 1\] but got"):
        CocoMaskAP(thresholds)
