"""From pictures and files to what a model takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from PIL import Image
from torch import Tensor, nn

from libragrad_lightning.image_files import read_rgb, to_rgb, upright

Picture: TypeAlias = "Image.Image | str | os.PathLike[str]"
"""An image of Pillow's, or the path of a file of any format that Pillow reads."""

Transform: TypeAlias = Callable[[Image.Image], Tensor]
"""From an RGB image to what a model takes, `[C, H, W]`."""


@dataclass(frozen=True)
class ModelInputs:
    """Images as a model takes them.

    Attributes:
        images: `[B, C, H, W]`, on the model's device.
        mean: What was subtracted from each channel, as a share of the pixel range; None if unknown.
        std: What each channel was divided by, likewise.
    """

    images: Tensor
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def model_inputs(
    model: nn.Module,
    images: Tensor | Picture | Sequence[Picture],
    transform: Transform | None = None,
) -> ModelInputs:
    """Return what a model takes, from tensors, pictures or files.

    Args:
        model: The model.
        images: `[B, C, H, W]`, prepared as the model expects, which is left as it is; or pictures,
            which are turned upright and go through the transform.
        transform: From a picture to `[C, H, W]`; by default the evaluation transform of the one
            model of timm that is in `model`.

    Raises:
        ValueError: If a file is no image, or the model names no transform and none is given.
    """
    if isinstance(images, Tensor):
        return ModelInputs(images)
    given = list(images) if isinstance(images, Sequence) and _no_picture(images) else [images]
    pictures = [p for p in given if isinstance(p, str | os.PathLike | Image.Image)]
    if not given or len(pictures) < len(given):
        kinds = sorted({type(value).__name__ for value in given}) or ["nothing"]
        raise ValueError(
            "`images` takes a tensor [B, C, H, W], pictures of Pillow's or paths of files, but it "
            f"holds {', '.join(kinds)}; pass one of these."
        )
    mean = std = None
    if transform is None:
        config = timm_config(model)
        transform = timm_transform(config)
        mean, std = tuple(config["mean"]), tuple(config["std"])
    ready = torch.stack([transform(_rgb(picture)) for picture in pictures])
    return ModelInputs(ready.to(*_place(model)), mean, std)


def timm_config(model: nn.Module) -> dict[str, Any]:
    """Return what timm knows of the inputs of the one model of timm in a module.

    Raises:
        ValueError: If there is none, or several want inputs of different kinds.
    """
    from timm.data.config import resolve_data_config

    configs: list[dict[str, Any]] = []
    for module in model.modules():
        own = getattr(module, "pretrained_cfg", None)
        if isinstance(own, dict) and "mean" in own:
            config = resolve_data_config({}, pretrained_cfg=own, model=module)
            if config not in configs:
                configs.append(config)
    if len(configs) != 1:
        known = "names no transform" if not configs else "holds models with different transforms"
        raise ValueError(
            f"Pictures have to be prepared as {type(model).__name__} expects them, but it {known}; "
            "pass `transform`, a function from an image of Pillow's to a tensor [C, H, W], such as "
            "`weights.transforms()` of torchvision, or pass a tensor."
        )
    return configs[0]


def timm_transform(config: dict[str, Any]) -> Transform:
    """Return timm's evaluation transform for a configuration."""
    from timm.data.transforms_factory import create_transform

    transform: Any = create_transform(**config)
    return cast("Transform", transform)


def _no_picture(value: object) -> bool:
    return not isinstance(value, str | os.PathLike | Image.Image)


def _rgb(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return to_rgb(upright(picture.copy()), Path("in memory"))
    return read_rgb(Path(picture))


def _place(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.float32
