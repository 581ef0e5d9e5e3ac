"""Data modules whose batches carry an image, a label and a mask of the object."""

from libragrad_lightning.data.composite_dataset import PIXEL_MEAN, PIXEL_STD
from libragrad_lightning.data.garments import GarmentsOnTextures

__all__ = ["PIXEL_MEAN", "PIXEL_STD", "GarmentsOnTextures"]
