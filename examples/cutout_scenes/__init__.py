"""Scenes with exact masks: cut-out objects, pasted on photographs of places."""

from cutout_scenes.data_module import CutoutDataModule

__all__ = ["CutoutDataModule"]
