"""How to read a model: tokens, blocks, prefix tokens, grid; and how to leave it undisturbed."""

from libragrad_lightning.models.errors import UnreadableModelError
from libragrad_lightning.models.feature_view import Axes, FeatureView
from libragrad_lightning.models.image_axes import ImageAxis
from libragrad_lightning.models.reading import only_part, read_token_model, submodule
from libragrad_lightning.models.state import explanation_state
from libragrad_lightning.models.token_model import Level, Recording, TokenModel, logits_of

__all__ = [
    "Axes",
    "FeatureView",
    "ImageAxis",
    "Level",
    "Recording",
    "TokenModel",
    "UnreadableModelError",
    "explanation_state",
    "logits_of",
    "only_part",
    "read_token_model",
    "submodule",
]
