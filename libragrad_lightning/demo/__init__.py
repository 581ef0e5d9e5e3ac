"""The demo: a small classifier, and garments on photographs to train it on.

What `configs/demo.yaml` and `configs/shortcut.yaml` name. `assets/README.md` lists the origins and
licenses of the images.
"""

from libragrad_lightning.demo.classifier import ImageClassifier
from libragrad_lightning.demo.composite_dataset import PIXEL_MEAN, PIXEL_STD
from libragrad_lightning.demo.garments import GarmentsOnTextures
from libragrad_lightning.demo.marked_garments import MarkedGarments

__all__ = [
    "PIXEL_MEAN",
    "PIXEL_STD",
    "GarmentsOnTextures",
    "ImageClassifier",
    "MarkedGarments",
]
