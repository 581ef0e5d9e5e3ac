"""The rooms depend on each other in one direction, and only the outer ones know Lightning."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "libragrad_lightning"
CALLBACKS = PACKAGE.parent / "callbacks"
OURS = "libragrad_lightning"

INNER = {
    "backward": set(),
    "models": {"backward"},
    "attribution": {"backward", "models"},
    "perturbation": {"models"},
    "diagnosis": {"backward", "models"},
    "metrics": set(),
    "heatmaps": set(),
}
KNOWS = INNER | {
    "data": set(),
    "weights": set(),
    "callbacks": set(INNER),
    "__init__": {"_torchvision", "attribution"},
    "__main__": {"cli"},
    "_torchvision": set(),
    "classifier": set(),
    "cli": set(),
}
"""Which others each room, and each file beside the rooms, may import. Nobody knows the data."""

FOREIGN = {
    "backward": {"torch"},
    "models": {"torch", "timm", "numpy"},
    "attribution": {"torch", "numpy", "tqdm"},
    "perturbation": {"torch", "torchvision"},
    "diagnosis": {"torch", "rich"},
    "metrics": {"torch", "torchmetrics", "numpy", "matplotlib", "pycocotools"},
    "heatmaps": {"torch", "numpy", "PIL", "matplotlib"},
    "data": {"torch", "torchvision", "timm", "numpy", "PIL", "pycocotools", "lightning"},
    "weights": {"torch", "timm", "onnx", "safetensors"},
    "callbacks": {"torch", "torchmetrics", "lightning", "rich", "tqdm"},
    "__init__": set(),
    "__main__": set(),
    "_torchvision": {"torch"},
    "classifier": {"torch", "timm", "lightning"},
    "cli": {"lightning"},
}
"""Which libraries each of them may import."""


def files(room):
    folder = CALLBACKS if room == "callbacks" else PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module


def test_every_room_has_its_rules():
    folders = {path.name for path in PACKAGE.iterdir() if any(path.glob("*.py"))}
    single = {path.stem for path in PACKAGE.glob("*.py")}
    assert set(KNOWS) == set(FOREIGN) == folders | single | {"callbacks"}


@pytest.mark.parametrize("room", KNOWS)
def test_rooms_import_what_they_may_know(room):
    assert files(room)
    for path in files(room):
        for name in imported(path):
            top, _, rest = name.partition(".")
            if top == OURS:
                assert rest.partition(".")[0] in KNOWS[room] | {room}, f"{path} imports {name}"
            else:
                assert top in FOREIGN[room] | sys.stdlib_module_names, f"{path} imports {name}"


def test_no_file_is_longer_than_a_room_should_be():
    for path in [*PACKAGE.rglob("*.py"), *CALLBACKS.glob("*.py")]:
        assert len(path.read_text().splitlines()) < 400, path
