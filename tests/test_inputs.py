"""Pictures and files become what a model takes."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from libragrad_lightning import explain
from libragrad_lightning.data.transforms import EvalTransform
from libragrad_lightning.inputs import model_inputs


@pytest.fixture
def photograph(tmp_path):
    pixels = np.random.default_rng(0).integers(40, 200, (120, 200, 3), dtype=np.uint8)
    path = tmp_path / "photograph.png"
    Image.fromarray(pixels).save(path)
    return path


class Wrapped(nn.Module):
    def __init__(self, *names):
        super().__init__()
        self.nets = nn.ModuleList(timm.create_model(name, num_classes=3) for name in names)

    def forward(self, images):
        return self.nets[0](images)


def test_files_and_pictures_go_through_the_models_own_transform(photograph):
    model = Wrapped("test_vit").eval()
    expected = EvalTransform("test_vit").image(Image.open(photograph))
    picture = Image.open(photograph)
    for given in (photograph, str(photograph), picture, [photograph], (picture,)):
        found = model_inputs(model, given)
        assert torch.equal(found.images, expected[None])
        assert (found.mean, found.std) == ((0.5,) * 3, (0.5,) * 3)
    assert model_inputs(model, [photograph, picture]).images.shape == (2, *expected.shape)


def test_a_file_is_explained_as_its_tensor_is(photograph):
    model = timm.create_model("test_vit", num_classes=3).eval()
    images = model_inputs(model, photograph).images
    found = explain(model, photograph)
    assert torch.equal(found.attribution, explain(model, images).attribution)
    # The colors are those of the picture, not stretched.
    torch.testing.assert_close(found.shown.displayed(), images / 2 + 0.5)
    assert not torch.allclose(explain(model, images).shown.displayed(), images / 2 + 0.5)


def test_tensors_are_left_as_they_are():
    images = torch.rand(1, 3, 8, 8)
    assert model_inputs(nn.Flatten(), images).images is images


def test_pictures_arrive_in_the_dtype_of_the_model(photograph):
    model = timm.create_model("test_vit").bfloat16()
    assert model_inputs(model, photograph).images.dtype is torch.bfloat16


def test_a_transform_of_ones_own_counts(photograph):
    seen = []

    def transform(image):
        seen.append(image.mode)
        return torch.zeros(3, 4, 4)

    found = model_inputs(nn.Flatten(), photograph, transform)
    assert (found.images.shape, found.mean, seen) == ((1, 3, 4, 4), None, ["RGB"])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Flatten(), r"as Flatten expects them, but it names no transform; pass `transform`"),
        (Wrapped("test_vit", "resnet10t"), "holds models with different transforms; pass `transf"),
    ],
)
def test_a_model_without_a_transform_asks_for_one(photograph, model, said):
    with pytest.raises(ValueError, match=said):
        model_inputs(model, photograph)


@pytest.mark.parametrize(
    ("given", "kinds"), [([], "nothing"), (3, "int"), (["a.png", 3], "int, str")]
)
def test_what_is_no_picture_is_refused(given, kinds):
    with pytest.raises(ValueError, match=f"but it holds {kinds}; pass one of these"):
        model_inputs(nn.Flatten(), given)


def test_a_file_that_is_missing_or_no_image_is_named(tmp_path):
    model = timm.create_model("test_vit")
    with pytest.raises(ValueError, match=r"none.png is missing; put it back, or change its path"):
        explain(model, tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text.png is not an image; replace or remove it"):
        explain(model, tmp_path / "text.png")
