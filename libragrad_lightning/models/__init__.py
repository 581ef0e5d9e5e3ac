"""How to read a model: tokens, blocks, prefix tokens, grid; and how to leave it undisturbed."""

from libragrad_lightning.models.errors import UnreadableModelError
from libragrad_lightning.models.feature_view import Axes, FeatureView
from libragrad_lightning.models.image_axes import ImageAxis
from libragrad_lightning.models.logits import logits_of
from libragrad_lightning.models.reading import read_token_model, submodule
from libragrad_lightning.models.refusals import is_out_of_memory
from libragrad_lightning.models.squashing import SQUASHING, Origins, called_with_origins
from libragrad_lightning.models.state import explanation_state
from libragrad_lightning.models.token_model import Level, Recording, TokenModel

__all__ = [
    "SQUASHING",
    "Axes",
    "FeatureView",
    "ImageAxis",
    "Level",
    "Origins",
    "Recording",
    "TokenModel",
    "UnreadableModelError",
    "called_with_origins",
    "explanation_state",
    "is_out_of_memory",
    "logits_of",
    "read_token_model",
    "submodule",
]
