"""A model's own evaluation transform, for images and, with the same geometry, for their masks."""

from __future__ import annotations

import copy
from typing import Any

import timm
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor
from torchvision.transforms import InterpolationMode


class EvalTransform:
    """Resize, centre crop and normalisation, as the model was evaluated by its authors.

    Masks get the same resize, with the nearest pixel ("nearest-exact"), and the same crop.

    Args:
        model_name: A name that timm knows, such as `vit_base_patch16_224.augreg2_in21k_ft_in1k`.
        image_size: Height and width of the result, pixels, or None for the model's own.

    Attributes:
        mean: Subtracted from each channel, as a share of the pixel range.
        std: Each channel is divided by it, the same share.

    Raises:
        ValueError: If timm knows no such model.
    """

    def __init__(self, model_name: str, image_size: int | None = None) -> None:
        pretrained = timm.get_pretrained_cfg(model_name)
        if pretrained is None:
            raise ValueError(
                f"timm has no evaluation transform for {model_name!r}; set model_name to a name of "
                "timm.list_models()."
            )
        size = {} if image_size is None else {"img_size": image_size}
        config = resolve_data_config(size, pretrained_cfg=pretrained.to_dict())
        self._transform = create_transform(**config)
        self.mean: tuple[float, ...] = tuple(config["mean"])
        self.std: tuple[float, ...] = tuple(config["std"])
        self._geometry = [_nearest(step) for step in self._transform.transforms[:-2]]

    def image(self, image: Image.Image) -> Tensor:
        """Transform an image.

        Args:
            image: RGB.

        Returns:
            `[3, S, S]` float32, normalised.
        """
        return self._transform(image)

    def masks(self, masks: Tensor) -> Tensor:
        """Resize and crop masks, or maps of class numbers, as their image.

        Args:
            masks: `[K, H, W]`, any dtype; H and W are those of the image.

        Returns:
            `[K, S, S]` of the same dtype; no value is new.
        """
        # Class numbers are floats only for the time of the resize; float64 holds all of them.
        resized = masks.double()
        for step in self._geometry:
            resized = step(resized)
        return resized.to(masks.dtype)


def _nearest(step: Any) -> Any:
    nearest = copy.copy(step)
    if hasattr(nearest, "interpolation"):
        nearest.interpolation = InterpolationMode.NEAREST_EXACT
    if hasattr(nearest, "fill"):
        nearest.fill = 0
    return nearest
