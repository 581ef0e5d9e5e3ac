"""The configurations of the photographs: they load, build model and data, and run on stand-ins."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from libragrad_lightning.callbacks import LibraGradAudit
from libragrad_lightning.cli import LibraGradCLI, main
from libragrad_lightning.data import CutoutDataModule, ObjectsDataModule

CONFIGS = Path(__file__).parents[1] / "configs"
NO_DOWNLOAD = "--model.init_args.pretrained=false"


def config_arguments(*names):
    return [argument for name in names for argument in ("--config", str(CONFIGS / name))]


def instantiate(arguments):
    """Instantiate what a configuration describes, parameters without storage."""
    quiet = ["--trainer.accelerator=cpu", "--trainer.logger=false"]
    with torch.device("meta"):
        return LibraGradCLI(run=False, args=[*arguments, *quiet], save_config_callback=None)


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Stand-ins for the photographs and for the weights, where the configuration looks for them."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data" / "photographs"
    for name in ("bird", "flower", "fruit", "mammal", "vehicle"):
        (root / "objects" / name).mkdir(parents=True)
        for number in range(4):
            picture = Image.new("RGBA", (40, 40))
            picture.paste((200, 9, 9, 255), (5, 5, 30, 30))
            picture.save(root / "objects" / name / f"{number}.png")
    (root / "backgrounds").mkdir()
    for number in range(3):
        Image.new("RGB", (90, 60), (60 * number,) * 3).save(root / "backgrounds" / f"{number}.jpg")
    return tmp_path


def test_twenty_objects_are_classes(photographs):
    cli = instantiate([*config_arguments("photographs.yaml"), NO_DOWNLOAD])
    assert isinstance(cli.datamodule, ObjectsDataModule)
    assert cli.model.model.num_classes == len(cli.datamodule.class_names) == 20
    assert cli.model.model.pos_embed.shape == (1, 65, 384)
    trained = {n.split(".")[1] for n, p in cli.model.model.named_parameters() if p.requires_grad}
    assert trained & {str(number) for number in range(12)} == {"8", "9", "10", "11"}
    audits = [one for one in cli.trainer.callbacks if isinstance(one, LibraGradAudit)]
    assert len(audits) == 2


def test_the_photographs_configuration_trains_and_audits_one_object_and_two(photographs):
    small = [NO_DOWNLOAD, "--model.init_args.model_name=test_vit", "--trainer.accelerator=cpu"]
    small += ["--model.init_args.model_kwargs", '{"img_size": 112}', "--trainer.fast_dev_run=true"]
    small += ["--model.init_args.frozen=[patch_embed]", "--data.init_args.batch_size=4"]
    cli = LibraGradCLI(args=["fit", *config_arguments("photographs.yaml"), *small])
    audits = [one for one in cli.trainer.callbacks if isinstance(one, LibraGradAudit)]
    one, two = (audit.history[-1] for audit in audits)
    assert one.values["segmentation_ap/libra"] == one.values["segmentation_ap/libra"]
    # Half of the questions are about the first object of a scene, half about the second.
    for metric in ("class_discrimination", "target_share", "segmentation_ap"):
        assert two.values[f"{metric}/libra"] == two.values[f"{metric}/libra"]
    assert two.values["accuracy"] <= 0.5


def test_unseen_objects_are_instantiated(photographs):
    arguments = config_arguments("unseen_objects.yaml")
    cli = instantiate([*arguments, NO_DOWNLOAD])
    assert isinstance(cli.datamodule, CutoutDataModule)
    assert cli.model.model.num_classes == len(cli.datamodule.class_names) == 5
    assert cli.model.model.pos_embed.shape == (1, 65, 384)
    assert any(isinstance(callback, LibraGradAudit) for callback in cli.trainer.callbacks)
    shortcut = instantiate([*arguments, NO_DOWNLOAD, "--data.init_args.shortcut=1"])
    assert shortcut.datamodule.hparams.shortcut == 1


def test_the_convolutional_network_takes_the_place_of_the_transformer(photographs):
    arguments = config_arguments("unseen_objects.yaml", "unseen_objects_cnn.yaml")
    cli = instantiate([*arguments, NO_DOWNLOAD])
    assert cli.model.model.pretrained_cfg["architecture"] == "tf_efficientnet_lite0"
    assert cli.model.model.num_classes == 5
    # Its weights were trained on this normalization.
    assert tuple(cli.datamodule.image_mean) == cli.model.model.pretrained_cfg["mean"]
    assert tuple(cli.datamodule.image_std) == cli.model.model.pretrained_cfg["std"]
    assert any(isinstance(callback, LibraGradAudit) for callback in cli.trainer.callbacks)


def test_the_hard_case_trains_and_audits(photographs, capsys):
    arguments = config_arguments("unseen_objects.yaml")
    small = [NO_DOWNLOAD, "--model.init_args.model_name=test_vit"]
    small += ["--model.init_args.model_kwargs", '{"img_size": 112}', "--trainer.accelerator=cpu"]
    small += ["--trainer.fast_dev_run=true", "--data.init_args.batch_size=4"]
    main(["fit", *arguments, *small])
    assert "Explanation audit" in capsys.readouterr().out
