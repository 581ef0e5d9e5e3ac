"""The configurations: each one loads, its model and data are built, and it runs, on tiny files."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import resolve_model_data_config

from libragrad_lightning.callbacks import LibraGradAudit
from libragrad_lightning.cli import LibraGradCLI
from libragrad_lightning.data import (
    CocoTogetherDataModule,
    ImageFolderDataModule,
    ImageNetSDataModule,
    MuraDataModule,
    OxfordPetsDataModule,
)
from libragrad_lightning.data.transforms import EvalTransform

CONFIGS = Path(__file__).parents[1] / "configs"
PAPER = CONFIGS / "paper"
NO_DOWNLOAD = "--model.init_args.pretrained=false"

# timm name, input size, millions of parameters with a head of 1000 classes.
MODELS = {
    "vit_tiny": ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", 224, 6),
    "vit_small": ("vit_small_patch16_224.augreg_in21k_ft_in1k", 224, 22),
    "vit_base": ("vit_base_patch16_224.augreg2_in21k_ft_in1k", 224, 87),
    "vit_large": ("vit_large_patch16_224.augreg_in21k_ft_in1k", 224, 304),
    "eva2_small": ("eva02_small_patch14_336.mim_in22k_ft_in1k", 336, 22),
    "beit2_large": ("beitv2_large_patch16_224.in1k_ft_in22k_in1k", 224, 304),
    "flexivit_large": ("flexivit_large.1200ep_in1k", 240, 304),
    "siglip_so400m": ("vit_so400m_patch14_siglip_gap_378.webli_ft_in1k", 378, 414),
    "clip_huge": ("vit_huge_patch14_clip_224.laion2b_ft_in12k_in1k", 224, 632),
    "deit3_huge": ("deit3_huge_patch14_224.fb_in22k_ft_in1k", 224, 632),
    "mlp_mixer": ("gmixer_24_224.ra3_in1k", 224, 25),
}
DATA = {
    "imagenet": (ImageFolderDataModule, 1000),
    "imagenet_hard": (ImageFolderDataModule, 1000),
    "imagenet_s": (ImageNetSDataModule, 1000),
    "coco_zebra_elephant": (CocoTogetherDataModule, 1000),
    "mura": (MuraDataModule, 1),
    "oxford_pets": (OxfordPetsDataModule, 37),
}
# A zebra and an elephant.
ANIMALS = ("n02391049", "n02504458")
COLORS = ((0, 50, 20), (99, 200, 20))


def config_arguments(*files):
    return [argument for file in files for argument in ("--config", str(file))]


def paper_arguments(model, data):
    files = [
        PAPER / "audit.yaml",
        PAPER / "data" / f"{data}.yaml",
        PAPER / "models" / f"{model}.yaml",
    ]
    return [*config_arguments(*files), NO_DOWNLOAD]


def instantiate(arguments):
    """Instantiate what a configuration describes, parameters without storage."""
    quiet = ["--trainer.accelerator=cpu", "--trainer.logger=false"]
    with torch.device("meta"):
        return LibraGradCLI(run=False, args=[*arguments, *quiet], save_config_callback=None)


def test_every_file_is_listed_here():
    assert {path.stem for path in (PAPER / "models").iterdir()} == set(MODELS)
    assert {path.stem for path in (PAPER / "data").iterdir()} == set(DATA)
    for name, (timm_name, _, _) in MODELS.items():
        assert timm.is_model_pretrained(timm_name), name


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_is_instantiated(name):
    timm_name, size, millions = MODELS[name]
    cli = instantiate(paper_arguments(name, "imagenet"))
    assert cli.model.hparams.model_name == timm_name
    assert round(sum(p.numel() for p in cli.model.model.parameters()) / 1e6) == millions
    picture = Image.fromarray(np.zeros((300, 400, 3), np.uint8))
    # Made again, since what was made above has no storage either.
    transform = EvalTransform(cli.datamodule.hparams.model_name)
    assert transform.image(picture).shape == (3, size, size)
    assert cli.model.model.default_cfg["input_size"] == (3, size, size)
    normalization = resolve_model_data_config(cli.model.model)
    assert cli.datamodule.image_mean == normalization["mean"]
    assert cli.datamodule.image_std == normalization["std"]


@pytest.mark.parametrize("name", DATA)
def test_every_data_set_is_instantiated(name):
    kind, num_classes = DATA[name]
    cli = instantiate(paper_arguments("vit_tiny", name))
    assert type(cli.datamodule) is kind
    assert cli.model.model.num_classes == num_classes
    assert (cli.datamodule.image_mean, cli.datamodule.image_std) == ((0.5,) * 3, (0.5,) * 3)
    assert any(isinstance(callback, LibraGradAudit) for callback in cli.trainer.callbacks)


def audited(subcommand, data, root, *arguments):
    """Run the paper's configuration of a data set with a tiny model, and return its one audit."""
    small = ["--model.init_args.model_name=test_vit", "--trainer.accelerator=cpu"]
    small += ["--model.init_args.model_kwargs", '{"img_size": 64}']
    small += ["--data.init_args.root", str(root), "--data.init_args.image_size=64"]
    small += ["--data.init_args.model_name=test_vit", *arguments]
    run = [subcommand, *paper_arguments("vit_tiny", data), *small]
    cli = LibraGradCLI(args=run, save_config_kwargs={"overwrite": True})
    (audit,) = (one for one in cli.trainer.callbacks if isinstance(one, LibraGradAudit))
    (record,) = audit.history
    return record


@pytest.fixture
def image_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, synset in enumerate(ANIMALS):
        (tmp_path / "val" / synset).mkdir(parents=True)
        Image.new("RGB", (40, 30), COLORS[number]).save(tmp_path / "val" / synset / "a.png")
    return tmp_path


def test_the_audit_runs_on_an_image_folder(image_folder, capsys):
    record = audited("validate", "imagenet", image_folder)
    assert "Explanation audit" in capsys.readouterr().out
    assert record.samples == 2


@pytest.mark.parametrize("name", ["test_vit", "vit_base_patch16_clip_224.openai"])
def test_panels_show_the_colors_of_the_files(image_folder, panels, name):
    other = [f"--{owner}.init_args.model_name={name}" for owner in ("model", "data")]
    tiny = ["--model.init_args.model_kwargs", '{"img_size": 64, "depth": 1, "embed_dim": 192}']
    audited("validate", "imagenet", image_folder, *other, *tiny)
    # The seed of the configuration draws them in this or the other order.
    shown = [panel.image for panel in panels]
    for image in shown:
        assert torch.equal(image, image[:, :1, :1].expand_as(image))
    found = {tuple((255 * image[:, 0, 0]).round().int().tolist()) for image in shown}
    assert found == set(COLORS)


def test_a_classifier_of_radiographs_is_trained_and_audited(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "valid"):
        lines = []
        for number in range(6):
            study = f"XR_WRIST/patient{number}/study1_{('negative', 'positive')[number % 2]}"
            (tmp_path / split / study).mkdir(parents=True)
            noise = np.random.default_rng(number).integers(0, 256, (50, 40), np.uint8)
            Image.fromarray(noise).save(tmp_path / split / study / "image1.png")
            lines.append(f"MURA-v1.1/{split}/{study}/image1.png")
        (tmp_path / f"{split}_image_paths.csv").write_text("\n".join(lines))
    record = audited("fit", "mura", tmp_path, "--trainer.max_epochs=1")
    assert record.samples == 6
    # With one logit taken for one class, no deletion would change anything.
    assert record.values["mif_aopc/libra"] != 0
    libra, plain = (record.values[f"completeness_error/{rules}"] for rules in ("libra", "plain"))
    assert libra < 1e-4 < plain
    assert "segmentation_ap/libra" not in record.values


@pytest.fixture
def segmented(tmp_path, monkeypatch):
    """ImageNet-S with two classes; a third of each image is to be ignored."""
    monkeypatch.chdir(tmp_path)
    for number, synset in enumerate(ANIMALS, start=1):
        values = np.full((90, 90), 1000)
        values[:60], values[20:50, 20:70] = 0, number
        for folder, pixels, suffix in (
            ("validation-segmentation", [values % 256, values // 256, 0 * values], "png"),
            ("validation", np.random.default_rng(number).integers(0, 256, (3, 90, 90)), "JPEG"),
        ):
            (tmp_path / folder / synset).mkdir(parents=True)
            picture = Image.fromarray(np.stack(list(pixels), -1).astype(np.uint8))
            picture.save(tmp_path / folder / synset / f"a.{suffix}")
    return tmp_path


def test_the_audit_of_imagenet_s_ignores_pixels_unless_the_paper_is_followed(segmented):
    paper, marked, again = (
        audited("validate", "imagenet_s", segmented, *arguments).values
        for arguments in ([], ["--data.init_args.mark_ignored=true"], [])
    )
    assert paper == again
    beside_masks = {"segmentation_ap", "energy_inside"}
    for key, value in paper.items():
        assert (marked[key] != value) == (key.partition("/")[0] in beside_masks), key
    assert marked["segmentation_ap/libra"] > paper["segmentation_ap/libra"]
