"""Models that were trained at another size, or made with other arguments, than timm's."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from libragrad_lightning import compare
from libragrad_lightning.cli import main
from libragrad_lightning.commands.models import Build, timm_model

MADE = {"embed_dim": 32, "depth": 2}


@pytest.fixture
def trained(tmp_path):
    """Weights of a small model of images of 64 pixels, and images of two classes."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=2, img_size=64, **MADE)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    for number, name in enumerate(("ant", "bee", "ant", "bee")):
        path = tmp_path / "images" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path


def the_model(folder):
    model = timm.create_model("test_vit", num_classes=2, img_size=64, **MADE).eval()
    model.load_state_dict(torch.load(folder / "weights.pt"))
    return model


def given(folder):
    return ["--model", "test_vit", "--checkpoint", str(folder / "weights.pt")]


BUILT = ["--image_size", "64", "--model_kwargs", '{"embed_dim": 32, "depth": 2}']


def test_a_size_is_that_of_images_too():
    for name, build in (("test_vit", Build(64)), ("test_vit", Build(None, {"img_size": 64}))):
        named = timm_model(name, random_weights=True, build=build)
        assert (named.image_size, named.side) == ((3, 64, 64), 64)
    named = timm_model("test_resnet", random_weights=True, build=Build(64))
    assert named.model.pretrained_cfg["input_size"] == (3, 64, 64)
    vit = timm_model("test_vit", random_weights=True, build=Build(64)).model
    assert vit.pos_embed.shape == timm.create_model("test_vit", img_size=64).pos_embed.shape


def test_pictures_are_those_of_the_model_that_was_trained(trained, capsys):
    image = trained / "images" / "ant" / "0.png"
    arguments = ["explain", str(image), *given(trained), *BUILT, "--output", str(trained / "out")]
    main(arguments)
    model = the_model(trained)
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 64, 64)}
    expected = compare(model, image, methods=["fullgrad_plus"]).figure()
    drawn = np.asarray(Image.open(trained / "out" / "0.png"))
    assert np.array_equal(drawn, expected.movedim(0, -1).numpy())
    assert "0.png" in capsys.readouterr().out


def test_a_folder_is_audited_and_operations_are_listed(trained, capsys):
    output = ["--output", str(trained / "audit"), "--num_images", "1"]
    main(["audit", str(trained / "images"), *given(trained), *BUILT, *output])
    found = json.loads((trained / "audit" / "audit.json").read_text())["audits"][-1]
    model, config = the_model(trained), {"input_size": (3, 64, 64)}
    transform = timm.data.create_transform(
        **timm.data.resolve_data_config(config, model=model), is_training=False
    )
    files = sorted((trained / "images").rglob("*.png"))
    images = torch.stack([transform(Image.open(file)) for file in files])
    right = [scores.argmax() == i // 2 for i, scores in enumerate(model(images))]
    assert found["values"]["accuracy"] == sum(right) / 4
    capsys.readouterr()
    main(["coverage", "test_vit", *BUILT])
    assert "Coverage under libra" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("built", "said"),
    [
        ([], "or pass the model_kwargs that it was made with."),
        (BUILT[2:], "or pass the image_size or model_kwargs that it was trained with."),
        (["--image_size", "0"], "error: image_size must be a positive side but is 0."),
        (["--image_size", "x"], "error: image_size: Expected a <class 'int'>"),
        (["--model_kwargs", '{"deep": 2}'], "change image_size or model_kwargs."),
    ],
)
def test_what_does_not_fit_ends_in_one_sentence(trained, capsys, built, said):
    with pytest.raises(SystemExit) as ending:
        main(["explain", str(trained / "images"), *given(trained), *built])
    assert ending.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
