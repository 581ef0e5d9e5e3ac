"""The command that draws the figure of a model of open_clip: what it draws, and what it refuses."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from libragrad_lightning.cli import main
from libragrad_lightning.heatmaps.panel import from_pil
from libragrad_lightning.prompts import PromptError, prompt_figure, text_prompts
from libragrad_lightning.prompts.hub import hub_model

# isort: split
import open_clip

pytestmark = pytest.mark.rotating

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "prompts").glob("*.yaml"))
SMALL = ["--model", "ViT-S-32-alt", "--pretrained", ""]


@pytest.fixture(autouse=True)
def photograph(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Image.effect_noise((96, 64), 80).convert("RGB").save("street.jpg")


def test_the_figure_of_a_photograph_is_written(capsys):
    torch.manual_seed(3)
    arguments = ["street.jpg", *SMALL, "--prompts", "a red bus", "people", "--scale", "50"]
    main(
        [
            "prompts",
            *arguments,
            "--templates",
            "a photo of {}",
            "--size",
            "96",
            "--output",
            "new/found.png",
        ]
    )
    said = capsys.readouterr()
    assert said.out == "new/found.png\n"
    assert said.err == "note: The weights are random.\n"
    torch.manual_seed(3)
    found = hub_model("ViT-S-32-alt", "")
    prompts = text_prompts(
        found.model, found.tokenizer, ["a red bus", "people"], templates=["a photo of {}"], scale=50
    )
    image = found.preprocess(Image.open("street.jpg").convert("RGB"))[None]
    model = found.model
    mean, std = model.visual.image_mean, model.visual.image_std
    expected = prompt_figure(prompts, image, mean=mean, std=std, column_size=96)
    assert torch.equal(from_pil(Image.open("new/found.png")), expected)


def test_columns_that_do_not_apply_are_noted(capsys):
    model = ["--model", "RN50", "--pretrained", ""]
    main(["prompts", "street.jpg", *model, "--prompts", "bus", "--size", "64"])
    notes = capsys.readouterr().err.splitlines()
    assert notes[-1] == "note: The weights are random."
    assert all(note.startswith("note: ") and "is left out" in note for note in notes[:-1])
    assert len(notes) > 1


WRONG = [
    (["street.jpg", *SMALL], "the following arguments are required: prompts"),
    (["no.jpg", *SMALL, "--prompts", "bus"], "The image no.jpg is missing; put it back"),
    (["street.jpg", *SMALL, "--prompts", "bus", "--output", "a.foo"], "a.foo has no ending of a"),
    (["street.jpg", *SMALL, "--prompts", " "], "`prompts` holds ' ', which says nothing"),
    (["street.jpg", *SMALL, "--prompts", "bus " * 80], "is too long"),
    (["street.jpg", "--model", "ViT-B-61-SigLIP", "--prompts", "a"], "'ViT-B-16-SigLIP'"),
    (["street.jpg", "--model", "open_clip/vit-b32", "--prompts", "a"], "'ViT-B-32'"),
    (["street.jpg", "--model", "xyz", "--prompts", "a"], "a name of `open_clip.list_models()`"),
    (["street.jpg", "--model", "ViT-B-32", "--pretrained", "x", "--prompts", "a"], "['openai', "),
    (["street.jpg", "--model", "ViT-S-32-alt", "--prompts", "a"], "or '' for random weights"),
    (["street.jpg", "--model", "RN50", "--prompts", "a"], "The weights 'openai' of RN50 cannot be"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG)
def test_mistakes_get_one_sentence(capsys, arguments, sentence):
    with pytest.raises(SystemExit) as exit_:
        main(["prompts", *arguments])
    said = capsys.readouterr().err
    assert exit_.value.code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert sentence in said
    assert not Path("prompts.png").exists()


def test_a_file_that_is_no_image_gets_a_sentence(capsys):
    Path("text.jpg").write_text("no image")
    with pytest.raises(SystemExit):
        main(["prompts", "text.jpg", *SMALL, "--prompts", "bus"])
    assert "text.jpg is not an image; replace or remove it." in capsys.readouterr().err


def test_a_tokenizer_of_the_hub_gets_a_sentence():
    with pytest.raises(PromptError, match=r"The tokenizer of ViT-B-16-SigLIP cannot be fetched"):
        hub_model("ViT-B-16-SigLIP", "")


def test_weights_come_from_a_file_too():
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-S-32-alt")
    torch.save(model.state_dict(), "weights.pt")
    found = hub_model("ViT-S-32-alt", "weights.pt").model
    assert all(torch.equal(v, found.state_dict()[k]) for k, v in model.state_dict().items())


def test_without_open_clip_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(PromptError, match=r"cannot be imported.*`pip install open_clip_torch`"):
        hub_model("ViT-S-32-alt", "")


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_configurations_name_weights_that_are_there(path, capsys):
    names = yaml.safe_load(path.read_text())
    tags = open_clip.list_pretrained_tags_by_model(names["model"])
    assert names["pretrained"] in tags
    with pytest.raises(SystemExit):
        main(["prompts", "street.jpg", "--config", str(path), "--prompts", "a red bus"])
    sentence = f"The weights {names['pretrained']!r} of {names['model']} cannot be fetched"
    assert sentence in capsys.readouterr().err


def test_there_are_configurations():
    assert [path.stem for path in CONFIGS] == ["eva02_large", "siglip_base"]
