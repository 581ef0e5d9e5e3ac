"""Scenes with exact masks: cut-out objects, pasted on photographs of places."""

from libragrad_lightning.data.scenes.cutout_module import CutoutDataModule
from libragrad_lightning.data.scenes.datasets import AskedTwice
from libragrad_lightning.data.scenes.objects_module import ObjectsDataModule

__all__ = ["AskedTwice", "CutoutDataModule", "ObjectsDataModule"]
