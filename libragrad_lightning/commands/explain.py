"""``libragrad explain``: pictures in, pictures of their explanations out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from libragrad_lightning.attribution import compare
from libragrad_lightning.attribution.drawing import explained_captions
from libragrad_lightning.commands.arguments import CommandArguments
from libragrad_lightning.commands.models import Build, default_device, timm_model
from libragrad_lightning.image_files import image_paths


def run(arguments: Sequence[str]) -> None:
    """Run the command with the arguments behind its name."""
    command = CommandArguments("explain", __doc__)
    command.add_texts("images", "Files of images, and folders of them.")
    command.add_rules("Rule sets, a column each.")
    command.add_texts("--class_names", "Names of the classes, in their order.")
    command.add_random_weights()
    command.call(explain_files, arguments)


def explain_files(
    images: Sequence[str],
    model: str = "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    checkpoint: str | None = None,
    random_weights: bool = False,
    image_size: int | None = None,
    model_kwargs: dict[str, Any] | None = None,
    target: int | None = None,
    method: str = "fullgrad_plus",
    rules: Sequence[str] = ("plain", "libra"),
    style: Literal["positive", "signed"] = "positive",
    class_names: Sequence[str] | None = None,
    output: str = "explanations",
    size: int = 224,
    batch_size: int = 8,
) -> None:
    """Explain image files and write a picture for each: the image beside its maps.

    Args:
        images: Files of images, and folders of them.
        model: A model of timm by its name.
        checkpoint: A file of its weights, in place of the pretrained ones.
        random_weights: Whether to leave the weights as they are drawn.
        image_size: The side of images that the weights were trained with, if it is another than
            timm's.
        model_kwargs: Further arguments of `timm.create_model` that the model was made with.
        target: The class to explain, by its index; the predicted one if omitted.
        method: The attribution method.
        rules: Rule sets, a column each.
        style: What of a map is shown: its positive part, or both signs.
        class_names: Names of the classes, in the order of the logits.
        output: The folder of the pictures.
        size: The longer side of one picture, in pixels.
        batch_size: Images explained at once.

    Raises:
        ValueError: If there is no image, names and model do not fit together, or a name is unknown.
    """
    files = image_paths([Path(image) for image in images])
    build = Build(image_size, model_kwargs or {})
    named = timm_model(model, checkpoint, random_weights, build)
    net, names = named.model.to(default_device()), class_names or named.class_names
    classes = int(named.model.num_classes)  # type: ignore[arg-type]
    if names and len(names) != classes:
        raise ValueError(
            f"There are {len(names)} names of classes, but the model has {classes} classes; change "
            "class_names, or pass a checkpoint of a model of these classes."
        )
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    places = _places(files, folder)
    for start in tqdm(range(0, len(files), batch_size), "Explaining", leave=False, delay=3.0):
        some = files[start : start + batch_size]
        found = compare(
            net,
            some,
            methods=[method],
            rules=rules,
            target="predicted" if target is None else target,
            progress=False,
        )
        captions = explained_captions(next(iter(found.explanations.values())), names)
        for i, (file, caption) in enumerate(zip(some, captions, strict=True)):
            place = next(places)
            found[i].save(place, class_names=names, style=style, column_size=size)
            tqdm.write(f"{file}: {caption} -> {place}")


def _places(files: Sequence[Path], folder: Path) -> Iterator[Path]:
    """Yield where pictures are written: by the names of their files, numbered if they repeat."""
    seen: dict[str, int] = {}
    for file in files:
        count = seen[file.stem] = seen.get(file.stem, 0) + 1
        yield folder / (f"{file.stem}.png" if count == 1 else f"{file.stem}_{count}.png")
