"""What explanations look like in a notebook, a script, a file and NumPy."""

import io

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from libragrad_lightning import compare, explain
from libragrad_lightning.attribution.drawing import explained_captions
from libragrad_lightning.backward import LibraGradError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=5).eval()


@pytest.fixture(scope="module")
def explanation(model):
    images = torch.rand(3, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    return explain(model, images, target=[4, 0, 2])


def test_it_says_in_one_line_what_it_is(explanation):
    said = repr(explanation)
    assert said.startswith("Explanation(3 images, 10 x 10, rules='libra', target=[4, 0, 2], larg")
    assert float(said.rstrip(")").rpartition(" ")[2]) == pytest.approx(
        float(explanation.residuals.abs().max()), rel=0.1
    )
    assert "Explanation(1 image, " in repr(explanation[0])


@pytest.mark.parametrize("index", [0, 2, -1, slice(1, None), slice(None, None, 2)])
def test_indexing_gives_that_of_some_images(explanation, index):
    some = explanation[index]
    rows = torch.arange(3)[index].view(-1)
    assert len(some) == len(rows)
    assert torch.equal(some.attribution, explanation.attribution[rows])
    assert torch.equal(some.reward_sums, explanation.reward_sums[:, rows])
    assert torch.equal(some.residuals, explanation.residuals[:, rows])
    assert torch.equal(some.target, explanation.target[rows])
    assert torch.equal(some.shown.images, explanation.shown.images[rows])


def test_an_index_that_is_not_there_ends_a_loop(explanation):
    with pytest.raises(IndexError, match="3 images were explained, but the index is 3"):
        explanation[3]
    assert [int(each.target) for each in explanation] == [4, 0, 2]


def test_numpy_reads_the_maps(explanation):
    assert np.array_equal(np.asarray(explanation), explanation.attribution.numpy())
    assert np.asarray(explanation, dtype=np.float64).dtype == np.float64
    half = explanation._each(lambda _, t: t.bfloat16())
    assert np.asarray(half).dtype == np.float32
    assert explanation.to("cpu").attribution.device.type == "cpu"


def picture(figure):
    return np.asarray(Image.open(io.BytesIO(figure)))


def test_a_figure_shows_every_image_beside_its_map(explanation):
    one, all_of_them = explanation[0].figure(), explanation.figure()
    assert all_of_them.shape[1] == 3 * one.shape[1]
    assert torch.equal(all_of_them[:, : one.shape[1], : one.shape[2]], one)
    assert np.array_equal(picture(explanation._repr_png_()), all_of_them.movedim(0, -1).numpy())


def test_signed_maps_are_drawn_otherwise(explanation):
    assert not torch.equal(explanation.figure(), explanation.figure(style="signed"))
    with pytest.raises(ValueError, match="style must be one of"):
        explanation.figure(style="both")


def test_figures_are_saved_and_plotted(explanation, tmp_path):
    explanation.save(tmp_path / "map.png", class_names="abcde", column_size=96)
    saved = np.asarray(Image.open(tmp_path / "map.png"))
    expected = explanation.figure(class_names="abcde", column_size=96)
    assert np.array_equal(saved, expected.movedim(0, -1).numpy())
    figure, axes = explanation.plot(column_size=96)
    drawn = explanation.figure(column_size=96).movedim(0, -1).numpy()
    assert np.array_equal(axes.images[0].get_array(), drawn)
    assert figure.axes == [axes]


def test_images_that_are_not_there_are_asked_for(explanation):
    from dataclasses import replace

    without = replace(explanation, shown=None)
    assert without._repr_png_() is None
    with pytest.raises(ValueError, match="but none are kept; pass `images`"):
        without.figure()
    with pytest.raises(ValueError, match="3 images were explained, but there are 2; pass `images`"):
        explanation.figure(torch.rand(2, 3, 160, 160))
    assert torch.equal(without.figure(explanation.shown.images), explanation.figure())


def test_captions_say_what_is_explained_and_how_likely_it_is(explanation):
    likely = explanation.logits.softmax(1).gather(1, explanation.target[:, None])[:, 0]
    said = explained_captions(explanation, ["ant", "bee"])
    names = ["class 4", "bee", "class 2"]
    names[1] = "ant"
    assert said == [f"{n}: {p:.0%}" for n, p in zip(names, likely.tolist(), strict=True)]


def test_captions_of_quantities_and_of_the_unlikely():
    from dataclasses import replace

    model = timm.create_model("test_vit", num_classes=2).eval()
    images = torch.rand(1, 3, 160, 160)
    quantity = explain(model, images, task="regression", reward="logit", target=1)
    assert explained_captions(quantity) == [f"class 1: {float(quantity.logits[0, 1]):.3g}"]
    unlikely = replace(quantity, task="multiclass", logits=torch.tensor([[9.0, 0.0]]))
    assert explained_captions(unlikely) == ["class 1: below 1%"]


def test_a_comparison_holds_what_explain_finds(model):
    images = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    found = compare(model, images, methods=["genatt", "fullgrad_plus"])
    assert list(found.explanations) == [
        *("genatt, plain", "genatt, libra", "fullgrad_plus, plain", "fullgrad_plus, libra"),
    ]
    for title, ours in found.explanations.items():
        method, _, rules = title.partition(", ")
        theirs = explain(model, images, method=method, rules=rules)
        torch.testing.assert_close(ours.attribution, theirs.attribution, rtol=0, atol=0)
    one = found[0].figure()
    assert torch.equal(found.figure()[:, : one.shape[1]], one)
    assert found._repr_png_() is not None


def test_methods_that_do_not_fit_are_left_out_of_a_comparison():
    model = timm.create_model("test_resnet", num_classes=3).eval()
    images = torch.rand(1, 3, 160, 160)
    with pytest.warns(UserWarning, match="genatt is left out: "):
        found = compare(model, images, methods=["genatt", "fullgrad_plus"], rules=["libra"])
    assert list(found.explanations) == ["fullgrad_plus, libra"]
    with pytest.raises(LibraGradError, match="fullgrad_plus"):
        compare(model, images, methods=["genatt"])
