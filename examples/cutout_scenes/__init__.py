"""Scenes with exact masks: cut-out objects, pasted on photographs of places."""

import libragrad_lightning  # noqa: F401  (mends torchvision before timm imports it)
from cutout_scenes.data_module import CutoutDataModule

__all__ = ["CutoutDataModule"]
