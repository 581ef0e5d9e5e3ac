"""The configurations: each one loads, and its model and data are built, without downloads."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from libragrad_lightning.callbacks import LibraGradAudit
from PIL import Image

from libragrad_lightning.cli import LibraGradCLI, main
from libragrad_lightning.data import (
    CocoTogetherDataModule,
    CutoutDataModule,
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


@pytest.mark.parametrize("name", DATA)
def test_every_data_set_is_instantiated(name):
    kind, num_classes = DATA[name]
    cli = instantiate(paper_arguments("vit_tiny", name))
    assert type(cli.datamodule) is kind
    assert cli.model.model.num_classes == num_classes
    assert any(isinstance(callback, LibraGradAudit) for callback in cli.trainer.callbacks)


def test_the_audit_runs_on_an_image_folder(tmp_path, monkeypatch, capsys):
    for number, synset in enumerate(("n02391049", "n02504458")):
        (tmp_path / "val" / synset).mkdir(parents=True)
        Image.new("RGB", (40, 30), (99 * number, 50, 20)).save(tmp_path / "val" / synset / "a.JPEG")
    monkeypatch.chdir(tmp_path)
    small = ["--data.init_args.root", str(tmp_path), "--model.init_args.model_name=test_vit"]
    small += ["--data.init_args.model_name=test_vit", "--trainer.accelerator=cpu"]
    small += ["--data.init_args.image_size=160"]
    main(["validate", *paper_arguments("vit_tiny", "imagenet"), *small])
    assert "Explanation audit" in capsys.readouterr().out


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Stand-ins for the photographs and for the weights, where the configuration looks for them."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data" / "photographs"
    for name in ("bird", "flower", "fruit", "mammal", "vehicle"):
        (root / "objects" / name).mkdir(parents=True)
        for number in range(3):
            picture = Image.new("RGBA", (40, 40))
            picture.paste((200, 9, 9, 255), (5, 5, 30, 30))
            picture.save(root / "objects" / name / f"{number}.png")
    (root / "backgrounds").mkdir()
    for number in range(3):
        Image.new("RGB", (90, 60), (60 * number,) * 3).save(root / "backgrounds" / f"{number}.jpg")
    return tmp_path


def test_the_photographs_are_instantiated(photographs):
    arguments = config_arguments(CONFIGS / "photographs.yaml")
    cli = instantiate([*arguments, NO_DOWNLOAD])
    assert isinstance(cli.datamodule, CutoutDataModule)
    assert cli.model.model.num_classes == len(cli.datamodule.class_names) == 5
    assert cli.model.model.pos_embed.shape == (1, 65, 384)
    assert any(isinstance(callback, LibraGradAudit) for callback in cli.trainer.callbacks)
    shortcut = instantiate([*arguments, NO_DOWNLOAD, "--data.init_args.shortcut=1"])
    assert shortcut.datamodule.hparams.shortcut == 1


def test_the_photographs_configuration_trains_and_audits(photographs, capsys):
    arguments = config_arguments(CONFIGS / "photographs.yaml")
    small = [NO_DOWNLOAD, "--model.init_args.model_name=test_vit"]
    small += ["--model.init_args.model_kwargs", '{"img_size": 112}', "--trainer.accelerator=cpu"]
    small += ["--trainer.fast_dev_run=true", "--data.init_args.batch_size=4"]
    main(["fit", *arguments, *small])
    assert "Explanation audit" in capsys.readouterr().out
