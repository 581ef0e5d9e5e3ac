"""A model's own evaluation transform, for images and, with the same geometry, for their masks."""

from __future__ import annotations

from typing import Any

import timm
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms import InterpolationMode


class EvalTransform:
    """Resize, center crop and normalization, as the model was evaluated by its authors.

    Masks go through a second transform of timm's, which takes the nearest pixel. One transform for
    both, torchvision's `v2` with `tv_tensors.Mask`, is none of those that timm makes, and where it
    resizes images smoothly, its masks are half a pixel off ("nearest" instead of "nearest-exact").

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
        self.mean: tuple[float, ...] = tuple(config["mean"])
        self.std: tuple[float, ...] = tuple(config["std"])
        self._image: Any = create_transform(**config)
        self._mask: Any = create_transform(**config, normalize=False)
        # timm has no name for it, nor for padding by anything else than the mean color.
        for step in self._mask.transforms:
            vars(step).update(interpolation=InterpolationMode.NEAREST_EXACT, fill=0)

    def image(self, image: Image.Image) -> Tensor:
        """Transform an image.

        Args:
            image: RGB.

        Returns:
            `[3, S, S]` float32, normalized.
        """
        transformed: Tensor = self._image(image)
        return transformed

    def masks(self, masks: Tensor) -> Tensor:
        """Resize and crop masks, or maps of class numbers, as their image.

        Args:
            masks: `[K, H, W]`, any dtype; H and W are those of the image.

        Returns:
            `[K, S, S]` of the same dtype; no value is new.
        """
        # Class numbers are floats only for the time of the resize; float64 holds all of them.
        resized: Tensor = self._mask(masks.double())
        return resized.to(masks.dtype)
