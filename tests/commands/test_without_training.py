"""The commands without training: pictures, tables, and one sentence for a mistake."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from libragrad_lightning import compare
from libragrad_lightning.cli import main
from libragrad_lightning.commands import COMMANDS
from libragrad_lightning.commands.explain import explain_files
from libragrad_lightning.commands.images import ImagesOfCategories, ImagesOfClasses
from libragrad_lightning.commands.models import timm_model
from libragrad_lightning.data.imagenet import imagenet_names


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    for number, name in enumerate(("a.png", "b.jpg", "more/a.png")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.splitlines()[-1]


def test_every_file_of_a_folder_gets_a_picture(photographs, checkpoint, tmp_path, capsys):
    output = tmp_path / "found" / "here"
    arguments = ["explain", str(photographs), "--model", "test_vit", "--output", str(output)]
    main([*arguments, "--checkpoint", str(checkpoint), "--class_names", "ant", "bee", "cat"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "->" in line]
    assert [line.rpartition("/")[2] for line in lines] == ["a.png", "b.png", "a_2.png"]
    assert all(any(f": {name}: " in line for name in ("ant", "bee", "cat")) for line in lines)
    assert sorted(path.name for path in output.iterdir()) == ["a.png", "a_2.png", "b.png"]


def test_a_picture_is_the_one_of_the_explanations(photographs, checkpoint, tmp_path):
    file = photographs / "a.png"
    explain_files([str(file)], "test_vit", str(checkpoint), output=str(tmp_path), target=2)
    model = timm.create_model("test_vit", num_classes=3).eval()
    model.load_state_dict(torch.load(checkpoint))
    expected = compare(model, file, methods=["fullgrad_plus"], target=2).figure()
    drawn = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(drawn, expected.movedim(0, -1).numpy())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.png"], "error: The image none.png is missing; put it back, or change its path."),
        (["{}/notes.txt"], "notes.txt is not an image; replace or remove it."),
        (["{}/a.png", "--method", "nope"], "error: Unknown method 'nope'; `method` takes one of"),
        (["{}/a.png", "--rules", "libra", "nope"], "error: Unknown rule set 'nope'; `rules` takes"),
        (["{}/a.png", "--target", "5000"], "the model has 1000 classes (0 to 999)"),
        (["{}/a.png", "--target", "x"], "error: target: Expected a <class 'int'>"),
        (["{}/a.png", "--model", "tset_vit"], "error: timm has no model 'tset_vit'; change model"),
        (["{}/a.png", "--style", "nope"], "error: style: "),
        (["{}/a.png", "--speed", "3"], "error: "),
        (["{}/a.png", "--class_names", "a", "b"], "error: There are 2 names of classes, but the"),
        ([], "error: "),
    ],
)
def test_mistakes_end_in_one_sentence(photographs, capsys, monkeypatch, tmp_path, arguments, said):
    monkeypatch.chdir(tmp_path)
    given = [a.format(photographs) for a in arguments]
    defaults = ["--model", "test_vit"] if "--model" not in given else []
    assert said in refused(["explain", *defaults, *given, "--random_weights"], capsys)


def test_an_empty_folder_is_refused(tmp_path, capsys):
    said = refused(["explain", str(tmp_path), "--model", "test_vit", "--random_weights"], capsys)
    assert said == f"error: The folder {tmp_path} holds no image; change its path."


def test_coverage_lists_the_operations(capsys):
    main(["coverage", "test_convnext"])
    printed = capsys.readouterr().out
    assert "Coverage under libra" in printed
    assert "GeluBackward0" in printed
    assert "activation" in printed
    assert refused(["coverage", "nope"], capsys).startswith("error: timm has no model 'nope'")


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"libragrad {name}" in printed for name in COMMANDS)
    assert all(command.summary in printed for command in COMMANDS.values())


@pytest.fixture
def classes(tmp_path):
    """Two classes of images, with masks of the same form."""
    for name in ("bee", "ant"):
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (170, 170, 3), dtype=np.uint8)
            mask = np.zeros((170, 170), dtype=np.uint8)
            mask[40:90, 40:90] = 255
            for kind, content in (("images", pixels), ("masks", mask)):
                path = tmp_path / kind / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(path)
    return tmp_path


def of_two_classes(folder):
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=2)
    torch.save(model.state_dict(), folder / "two.pt")
    return str(folder / "two.pt")


@pytest.mark.filterwarnings("ignore")
def test_a_folder_is_audited_and_a_page_written(classes, capsys):
    output = classes / "found"
    main(
        [
            *("audit", str(classes / "images"), "--masks", str(classes / "masks")),
            *("--model", "test_vit", "--checkpoint", of_two_classes(classes)),
            *("--max_samples", "4", "--output", str(output)),
        ]
    )
    assert capsys.readouterr().out.splitlines()[-1] == str(output / "audit.html")
    content = json.loads((output / "audit.json").read_text())
    (found,) = content["audits"]
    assert found["samples"] == 4
    assert found["values"]["completeness_error/libra"] < 1e-5
    assert 0 < found["values"]["segmentation_ap/libra"] < 1
    assert "accuracy" in found["values"]
    page = (output / "audit.html").read_text()
    assert page.count("<img") == 5  # four panels and the curves


def test_classes_are_those_of_the_model_in_the_order_of_names(classes):
    named = timm_model("test_vit", of_two_classes(classes))
    data = ImagesOfClasses(str(classes / "images"), None, "test_vit", named, 2)
    data.setup("validate")
    assert data.class_names == ("ant", "bee")
    assert [int(label) for batch in data.val_dataloader() for label in batch["label"]] == [
        *(0, 0, 0, 1, 1, 1),
    ]
    with pytest.raises(ValueError, match="has no training images"):
        data.setup("fit")


def test_folders_of_synsets_are_imagenets_classes(classes):
    (classes / "images" / "ant").rename(classes / "images" / "n02391049")
    (classes / "images" / "bee").rename(classes / "images" / "n02123045")
    model = timm_model("test_vit", random_weights=True)
    named = replace(model, class_names=imagenet_names())
    data = ImagesOfClasses(str(classes / "images"), None, "test_vit", named, 6)
    data.setup("validate")
    (batch,) = data.val_dataloader()
    assert sorted(set(batch["label"].tolist())) == [281, 340]
    assert data.class_names[340] == "zebra"


def test_other_classes_than_the_models_are_refused(classes, capsys):
    arguments = ["audit", str(classes / "images"), "--model", "test_vit", "--random_weights"]
    said = refused(arguments, capsys)
    assert said == (
        f"error: {classes / 'images'} holds folders of 2 classes, but the model has 1000; change "
        "images, or pass a checkpoint of a model of these classes."
    )
    said = refused(["audit", str(classes / "none"), *arguments[2:]], capsys)
    assert said.endswith("none holds no folders of classes; change images.")


@pytest.fixture
def annotated(tmp_path):
    """Four images of bees, one of them beside a larger ant, and an ant alone."""
    folder, boxes = tmp_path / "photographs", []
    folder.mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (170, 170, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        boxes += [(number, 7, 40)] if number < 4 else []
        boxes += [(number, 3, 60)] if number > 2 else []
    content = {
        "images": [
            {"id": number, "file_name": f"{number}.png", "height": 170, "width": 170}
            for number in range(5)
        ],
        "categories": [{"id": 7, "name": "bee"}, {"id": 3, "name": "ant"}],
        "annotations": [
            {
                "id": place,
                "image_id": number,
                "category_id": category,
                "segmentation": [[50, 50, 50 + size, 50, 50 + size, 50 + size, 50, 50 + size]],
                "iscrowd": 0,
            }
            for place, (number, category, size) in enumerate(boxes)
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_annotated_images_are_audited(annotated, capsys):
    output, coco = annotated / "found", str(annotated / "instances.json")
    arguments = ["audit", str(annotated / "photographs"), "--model", "test_vit", "--coco", coco]
    main([*arguments, "--checkpoint", of_two_classes(annotated), "--output", str(output)])
    (found,) = json.loads((output / "audit.json").read_text())["audits"]
    assert found["samples"] == 5
    assert 0 < found["values"]["segmentation_ap/libra"] < 1
    capsys.readouterr()
    both = [*arguments, "--masks", coco, "--random_weights"]
    assert refused(both, capsys) == (
        "error: Both masks and coco are given; leave out one of the two."
    )
    assert refused([*arguments, "--random_weights"], capsys) == (
        f"error: {coco} has categories of 2 classes, but the model has 1000; change coco, or pass "
        "a checkpoint of a model of these classes."
    )


def test_an_annotated_image_has_the_class_that_covers_most_of_it(annotated):
    coco, images = str(annotated / "instances.json"), str(annotated / "photographs")

    def labels_and_shares(named):
        data = ImagesOfCategories(images, coco, "test_vit", named, 5)
        data.setup("validate")
        (batch,) = data.val_dataloader()
        return data, batch["label"].tolist(), batch["mask"].flatten(1).double().mean(1).tolist()

    data, labels, shares = labels_and_shares(timm_model("test_vit", of_two_classes(annotated)))
    assert data.class_names == ("ant", "bee")
    assert labels == [1, 1, 1, 0, 0]
    assert shares == pytest.approx([(40 / 170) ** 2] * 3 + [(60 / 170) ** 2] * 2, rel=0.2)
    by_name = replace(timm_model("test_vit", random_weights=True), class_names=("Bee", *"x" * 999))
    assert labels_and_shares(by_name)[1] == [0, 0, 0, 0]


def test_images_that_are_missing_or_show_no_class_are_refused(annotated):
    coco, images = str(annotated / "instances.json"), annotated / "photographs"
    named = timm_model("test_vit", of_two_classes(annotated))
    (images / "2.png").unlink()
    data = ImagesOfCategories(str(images), coco, "test_vit", named, 5)
    with pytest.raises(ValueError, match=r"\(2.png\); put it back, or change images\."):
        data.setup("validate")
    content = json.loads((annotated / "instances.json").read_text())
    (annotated / "instances.json").write_text(json.dumps(content | {"annotations": []}))
    data = ImagesOfCategories(str(images), coco, "test_vit", named, 5)
    with pytest.raises(ValueError, match="shows one of ant, bee; change coco"):
        data.setup("validate")
