"""Draws the paper's figure of images and prompts with a model of open_clip.

    python -m libragrad_lightning.prompts street.jpg --prompts "a red bus" people

A mistake of the user's ends it with one sentence and exit status 2.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
from jsonargparse import ArgumentParser, Namespace
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from libragrad_lightning.backward import LibraGradError
from libragrad_lightning.heatmaps.panel import to_pil
from libragrad_lightning.image_files import upright
from libragrad_lightning.prompts.errors import PromptError
from libragrad_lightning.prompts.figure import prompt_figure
from libragrad_lightning.prompts.hub import RANDOM, hub_model
from libragrad_lightning.prompts.text_prompts import text_prompts


class _Parser(ArgumentParser):
    """Says what is wrong in one sentence, instead of after a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        self.exit(2, f"error: {' '.join(message.split())}\n")


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    found = _Parser(prog="python -m libragrad_lightning.prompts", description=__doc__)
    add = found.add_argument
    add(
        "--config",
        action="config",
        help="A file with some of the arguments, as in configs/prompts.",
    )
    add("images", nargs="+", type=str, help="Files of images.")
    add("--prompts", nargs="+", type=str, required=True, help="What is looked for, one text each.")
    add("--model", type=str, default="ViT-B-16-SigLIP", help="A name that open_clip knows.")
    add(
        "--pretrained",
        type=str | None,
        default=None,
        help="Its weights: a tag of open_clip, or a file; by default the first tag. An empty text "
        "stands for random weights.",
    )
    add("--templates", nargs="+", type=str, default=["{}"], help="Texts with {} for the prompt.")
    add(
        "--scale",
        type=float | None,
        default=None,
        help="What cosines are multiplied by; by default the model says.",
    )
    add("--output", type=str, default="prompts.png", help="The file of the figure.")
    add("--size", type=int, default=224, help="The longer side of one picture, in pixels.")
    return found


def main(args: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        args: Arguments, or None for those of the process.

    Raises:
        SystemExit: With status 2 after a mistake of the user's.
    """
    given = parser().parse_args(args)
    logging.disable(logging.ERROR)  # open_clip logs what the sentence says.
    try:
        _check_output(given.output)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            picture = figure(given)
        _save(picture, given.output)
    except LibraGradError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    finally:
        logging.disable(logging.NOTSET)
    notes = [str(w.message) for w in caught if w.category is UserWarning]
    if given.pretrained == RANDOM:
        notes.append("The weights are random.")
    for note in dict.fromkeys(notes):
        print(f"note: {note}", file=sys.stderr)
    print(given.output)


def figure(given: Namespace) -> Tensor:
    """Return the figure of the arguments, uint8 `[3, H, W]`.

    Raises:
        LibraGradError: If the model, its weights, the images or the prompts cannot work.
    """
    shown = [_opened(path) for path in given.images]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = hub_model(given.model, given.pretrained)
    prompts = text_prompts(
        found.model.to(device),
        found.tokenizer,
        given.prompts,
        templates=given.templates,
        scale=given.scale,
    )
    images = torch.stack([found.preprocess(image) for image in shown]).to(device)
    return prompt_figure(prompts, images, mean=found.mean, std=found.std, column_size=given.size)


def _opened(path: str) -> Image.Image:
    try:
        return upright(Image.open(path)).convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error
        raise PromptError(f"{path} is no image ({reason}); change `images`.") from error


def _check_output(path: str) -> None:
    if Path(path).suffix.lower() not in Image.registered_extensions():
        raise PromptError(
            f"{path} has no ending of a picture's file; change `output`, such as to prompts.png."
        )


def _save(picture: Tensor, path: str) -> None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        to_pil(picture).save(path)
    except OSError as error:
        raise PromptError(f"{path} cannot be written ({error}); change `output`.") from error


if __name__ == "__main__":
    main()
