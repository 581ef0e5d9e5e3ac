"""Data modules for annotated images: batches carry an image, a label and a mask of the object.

The form of the batches is described in `libragrad_lightning.data.batches`.
"""

from libragrad_lightning.data.coco import CocoDataModule, CocoTogetherDataModule
from libragrad_lightning.data.image_folder import ImageFolderDataModule
from libragrad_lightning.data.imagenet_s import ImageNetSDataModule
from libragrad_lightning.data.module import SplitDataModule
from libragrad_lightning.data.mura import MuraDataModule
from libragrad_lightning.data.oxford_pets import OxfordPetsDataModule
from libragrad_lightning.data.scenes import AskedTwice, CutoutDataModule, ObjectsDataModule

__all__ = [
    "AskedTwice",
    "CocoDataModule",
    "CocoTogetherDataModule",
    "CutoutDataModule",
    "ImageFolderDataModule",
    "ImageNetSDataModule",
    "MuraDataModule",
    "ObjectsDataModule",
    "OxfordPetsDataModule",
    "SplitDataModule",
]
