"""The rooms depend on each other in one direction, and only the outer ones know Lightning."""

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "libragrad_lightning"
CALLBACKS = PACKAGE.parent / "callbacks"
OURS = "libragrad_lightning"

INNER = {
    "lookup": set(),
    "tables": set(),
    "placement": set(),
    "image_files": set(),
    "inputs": {"image_files"},
    "backward": {"lookup"},
    "models": {"backward", "placement"},
    "attribution": {"backward", "heatmaps", "inputs", "lookup", "models", "placement"},
    "perturbation": {"lookup", "models"},
    "diagnosis": {"attribution", "backward", "metrics", "models", "tables"},
    "prompts": {"attribution", "backward", "heatmaps", "models"},
    "metrics": set(),
    "heatmaps": {"placement"},
}
KNOWS = INNER | {
    "both_lightnings": set(),
    "audit": {"attribution", "backward", "metrics", "models", "perturbation"},
    "reporting": {
        *("attribution", "audit", "both_lightnings", "diagnosis", "heatmaps", "metrics"),
        *("placement", "tables"),
    },
    "monitoring": {
        *("attribution", "audit", "backward", "both_lightnings", "diagnosis", "models"),
        "reporting",
    },
    "callbacks": {"attribution", "audit", "backward", "monitoring", "reporting"},
    "data": {"image_files"},
    "demo": {"audit", "data", "prompts"},
    "__init__": {"_torchvision", "attribution"},
    "__main__": {"cli"},
    "_torchvision": set(),
    "parsing": {"backward"},
    "commands": {
        *("attribution", "backward", "callbacks", "data", "diagnosis", "heatmaps", "image_files"),
        *("models", "parsing", "prompts"),
    },
    "cli": {"__init__", "callbacks", "commands", "parsing"},
}
"""Which others each room, and each file beside the rooms, may import.

Nobody knows the data but the demo and the commands, and nobody the demo.
"""

FOREIGN = {
    "lookup": set(),
    "tables": set(),
    "placement": {"torch"},
    "image_files": {"numpy", "PIL"},
    "inputs": {"torch", "PIL", "timm"},
    "backward": {"torch"},
    "models": {"torch", "timm", "numpy"},
    "attribution": {"torch", "numpy", "tqdm", "matplotlib"},
    "perturbation": {"torch", "torchvision", "numpy", "scipy"},
    "diagnosis": {"torch", "rich"},
    "prompts": {"torch", "PIL", "open_clip"},
    "metrics": {"torch", "torchmetrics", "numpy", "scipy", "matplotlib", "pycocotools"},
    "heatmaps": {"torch", "numpy", "PIL", "matplotlib"},
    "data": {"torch", "torchvision", "timm", "numpy", "PIL", "pycocotools", "lightning"},
    "demo": {"torch", "timm", "numpy", "PIL", "lightning"},
    "both_lightnings": set(),
    "audit": {"torch", "torchmetrics"},
    "reporting": {"torch", "lightning", "rich", "matplotlib", "tensorboard"},
    "monitoring": {"torch", "lightning", "rich", "tqdm"},
    "callbacks": {"torchmetrics", "lightning"},
    "__init__": set(),
    "__main__": set(),
    "_torchvision": {"torch"},
    "parsing": {"jsonargparse"},
    "commands": {"torch", "timm", "rich", "safetensors", "tqdm", "lightning", "PIL"},
    "cli": {"lightning", "jsonargparse"},
}
"""Which libraries each of them may import."""

INSIDE = {"reporting": {"wandb"}}
"""Which libraries each room may import inside of functions alone: those that nobody needs."""


ENGINE = {
    "errors": set(),
    "graph": {"errors"},
    "rules": {"errors", "graph"},
    "rule_sets": {"graph", "rules"},
    "biases": {"errors", "graph", "rules", "rule_sets"},
    "attention_watch": {"graph", "rules"},
    "arrivals": {"graph"},
    "gradient": {"arrivals", "biases", "graph", "rule_sets"},
    "__init__": {
        *("arrivals", "attention_watch", "biases", "errors", "gradient", "graph", "rule_sets"),
        "rules",
    },
}
"""Which others each room of the engine, and each file beside these rooms, may import."""

LONGEST_FUNCTION = 40
"""In lines, without the signature and the docstring."""


def files(room):
    folder = CALLBACKS if room == "callbacks" else PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def imports(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [] if node.level else [node.module]
    return []


def imported(path, room):
    tree = ast.parse(path.read_text())
    # Only callbacks/ says "here", since it has one name as it lies and another as it is installed.
    here = {n.level for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert here <= ({0, 1} if room == "callbacks" else {0})
    names = [name for node in ast.walk(tree) for name in imports(node)]
    outside = {name for node in tree.body for name in imports(node)}
    return [n for n in names if n in outside or n not in INSIDE.get(room, ())]


def test_every_room_has_its_rules():
    folders = {path.name for path in PACKAGE.iterdir() if any(path.glob("*.py"))}
    single = {path.stem for path in PACKAGE.glob("*.py")}
    assert set(KNOWS) == set(FOREIGN) == folders | single | {"callbacks"}


@pytest.mark.parametrize("room", KNOWS)
def test_rooms_import_what_they_may_know(room):
    assert files(room)
    for path in files(room):
        for name in imported(path, room):
            top, _, rest = name.partition(".")
            if top == OURS:
                known = rest.partition(".")[0] or "__init__"
                assert known in KNOWS[room] | {room}, f"{path} imports {name}"
            else:
                assert top in FOREIGN[room] | sys.stdlib_module_names, f"{path} imports {name}"


@pytest.mark.parametrize(
    ("folder", "most"), [(PACKAGE, 300), (CALLBACKS, 200)], ids=["package", "callbacks"]
)
def test_no_file_is_longer_than_a_room_should_be(folder, most):
    lengths = {path: len(path.read_text().splitlines()) for path in folder.rglob("*.py")}
    assert {path.name: length for path, length in lengths.items() if length > most} == {}


def test_every_room_of_the_engine_has_its_rules():
    folder = PACKAGE / "backward"
    rooms = {path.name for path in folder.iterdir() if any(path.glob("*.py"))}
    assert set(ENGINE) == rooms | {path.stem for path in folder.glob("*.py")}


@pytest.mark.parametrize("room", ENGINE)
def test_rooms_of_the_engine_import_what_they_may_know(room):
    for path in files(f"backward/{room}"):
        for name in imported(path, "backward"):
            ours, engine, *rest = (*name.split("."), "")[:3]
            if (ours, engine) == (OURS, "backward"):
                assert rest[0] in ENGINE[room] | {room}, f"{path} imports {name}"


def names_from_rooms(path):
    """The names that a file imports from rooms of this package, with these rooms."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith(f"{OURS}."):
            yield from ((node.module, alias.name) for alias in node.names)


def test_no_file_imports_what_is_private():
    found = [
        f"{path.name} imports {name} of {module}"
        for folder in (PACKAGE, CALLBACKS)
        for path in folder.rglob("*.py")
        for module, name in names_from_rooms(path)
        if name.startswith("_") and module != OURS
    ]
    assert found == []


def body_length(function):
    first = function.body[ast.get_docstring(function) is not None :]
    return function.end_lineno - first[0].lineno + 1 if first else 0


def test_no_function_is_longer_than_a_screen():
    functions = (
        (path.name, node)
        for folder in (PACKAGE, CALLBACKS)
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    lengths = {f"{name}: {node.name}": body_length(node) for name, node in functions}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def chain(node):
    """The names of `a.b.c`, outermost object first; empty for anything else."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if names and isinstance(node, ast.Name) else []


def reached_through(path):
    """What methods touch of the parts of their object's parts, or write into its parts."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = chain(node)
        written = isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
        if names[:1] == ["self"] and len(names) > (2 if written else 3):
            yield f"{path.parent.name}/{path.name}:{node.lineno} {'.'.join(names)}"


@pytest.mark.parametrize("room", ["audit", "monitoring", "reporting", "callbacks"])
def test_objects_leave_the_parts_of_others_alone(room):
    assert [found for path in files(room) for found in reached_through(path)] == []


def test_no_two_files_of_tests_share_a_name():
    """Pytest imports them by their names alone, and a whole run would not be collected."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("*.py"))
    assert {name for name, count in names.items() if count > 1} <= {"conftest.py"}
