"""What methods draw at random belongs to the image, whatever else is in its batch."""

import pytest
import timm
import torch

from libragrad_lightning import explain
from libragrad_lightning.attribution import SmoothGrad

IMAGES = torch.randn(4, 3, 32, 32, dtype=torch.float64)
METHODS = {"random": "random", "smoothgrad": SmoothGrad(samples=3, noise=0.5)}


@pytest.fixture(scope="module")
def model():
    options = {"patch_size": 8, "img_size": 32, "depth": 1, "num_classes": 3}
    return timm.create_model("vit_tiny_patch16_224", **options).eval().double()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_an_image_has_one_map_in_any_batch(model, method):
    def maps(images, **options):
        return explain(model, images, method=method, target=1, **options).attribution

    whole = maps(IMAGES)
    for size in (1, 2, 3):
        torch.testing.assert_close(maps(IMAGES, batch_size=size), whole)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(maps(IMAGES[order]), whole[order])
    torch.testing.assert_close(maps(IMAGES[1:2]), whole[1:2])
    twins = maps(IMAGES[[0, 0]])
    torch.testing.assert_close(twins[0], twins[1])
    if method == "random":
        flat = whole.flatten(1)
        assert torch.corrcoef(flat).fill_diagonal_(0).abs().max() < 0.9
        assert ((flat >= 0) & (flat < 1)).all()


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_that_is_none_is_refused(model, size):
    with pytest.raises(ValueError, match="`batch_size` must be a positive number of images"):
        explain(model, IMAGES, batch_size=size)


@pytest.mark.parametrize(
    "target",
    [[1.9, 0.0, 1.0, 1.0], [True, False, True, True], lambda z, _: z[:, 0] * 0 + 0.5],
    ids=["shares", "truth values", "function"],
)
def test_classes_that_are_no_whole_numbers_are_refused(model, target):
    with pytest.raises(ValueError, match="`target` must name classes by whole numbers"):
        explain(model, IMAGES, target=target)


def test_classes_of_any_integer_type_are_taken(model):
    expected = torch.tensor([0, 2, 1, 0])
    for dtype in (torch.uint8, torch.int32, torch.uint16, torch.float32):
        assert torch.equal(explain(model, IMAGES, target=expected.to(dtype)).target, expected)
