"""``libragrad prompts``: what in pictures answers to texts, with a model of open_clip."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from libragrad_lightning.commands.arguments import CommandArguments
from libragrad_lightning.commands.models import default_device
from libragrad_lightning.heatmaps import to_pil
from libragrad_lightning.image_files import image_paths, read_rgb
from libragrad_lightning.prompts import prompt_figure, text_prompts
from libragrad_lightning.prompts.hub import RANDOM, hub_model


def run(arguments: Sequence[str]) -> None:
    """Run the command with the arguments behind its name."""
    command = CommandArguments("prompts", __doc__)
    command.add_texts("images", "Files of images, and folders of them.")
    command.add_texts("--prompts", "What is looked for, one text each.", required=True)
    command.add_texts("--templates", "Texts with {} for the prompt.", default=["{}"])
    logging.disable(logging.ERROR)  # open_clip logs what the sentence says.
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            given = command.call(draw_prompts, arguments)
    finally:
        logging.disable(logging.NOTSET)
    notes = [str(w.message) for w in caught if w.category is UserWarning]
    if given["pretrained"] == RANDOM:
        notes.append("The weights are random.")
    for note in dict.fromkeys(notes):
        print(f"note: {note}", file=sys.stderr)
    print(given["output"])


def draw_prompts(
    images: Sequence[str],
    prompts: Sequence[str],
    model: str = "ViT-B-16-SigLIP",
    pretrained: str | None = None,
    templates: Sequence[str] = ("{}",),
    scale: float | None = None,
    output: str = "prompts.png",
    size: int = 224,
) -> None:
    """Write the paper's figure of images and prompts.

    Args:
        images: Files of images, and folders of them.
        prompts: What is looked for, one text each.
        model: A name that open_clip knows.
        pretrained: Its weights: a tag of open_clip, or a file; by default the first tag. An empty
            text stands for random weights.
        templates: Texts with {} for the prompt.
        scale: What cosines are multiplied by; by default the model says.
        output: The file of the figure.
        size: The longer side of one picture, in pixels.

    Raises:
        ValueError: If an image cannot be read, or the figure cannot be written.
        PromptError: If the model, its weights or the prompts cannot work.
    """
    if Path(output).suffix.lower() not in Image.registered_extensions():
        raise ValueError(
            f"{output} has no ending of a picture's file; change output, such as to prompts.png."
        )
    shown = [read_rgb(path) for path in image_paths([Path(image) for image in images])]
    found = hub_model(model, pretrained)
    scored = text_prompts(
        found.model.to(default_device()),
        found.tokenizer,
        prompts,
        templates=templates,
        scale=scale,
    )
    batch = torch.stack([found.preprocess(image) for image in shown]).to(default_device())
    _save(prompt_figure(scored, batch, mean=found.mean, std=found.std, column_size=size), output)


def _save(picture: Tensor, path: str) -> None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        to_pil(picture).save(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error}); change output.") from error
