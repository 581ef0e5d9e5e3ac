"""The demos: small models, and garments on photographs to train them on.

What `configs/demo.yaml`, `configs/shortcut.yaml` and `configs/clip.yaml` name. `assets/README.md`
lists the origins and licenses of the images.
"""

from libragrad_lightning.demo.classifier import ImageClassifier
from libragrad_lightning.demo.composite_dataset import PIXEL_MEAN, PIXEL_STD
from libragrad_lightning.demo.garment_pairs import GarmentPairs
from libragrad_lightning.demo.garments import GarmentsOnTextures
from libragrad_lightning.demo.prompted import prompted_garments
from libragrad_lightning.demo.scattered_garments import ScatteredGarments
from libragrad_lightning.demo.shortcut_garments import ShortcutGarments
from libragrad_lightning.demo.text_matcher import TextMatcher
from libragrad_lightning.demo.two_garments import TwoGarments

__all__ = [
    "PIXEL_MEAN",
    "PIXEL_STD",
    "GarmentPairs",
    "GarmentsOnTextures",
    "ImageClassifier",
    "ScatteredGarments",
    "ShortcutGarments",
    "TextMatcher",
    "TwoGarments",
    "prompted_garments",
]
