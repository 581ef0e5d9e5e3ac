"""How to read a model: tokens, blocks, prefix tokens, grid; and how to leave it undisturbed."""

from libragrad_lightning.models.calls import is_differentiable
from libragrad_lightning.models.device_memory import free_bytes
from libragrad_lightning.models.errors import UnreadableModelError, WeightsTooLargeError
from libragrad_lightning.models.feature_view import (
    Axes,
    Features,
    FeatureView,
    JoinedView,
    View,
    joined_features,
    only,
    parts_of,
    prefix_of,
)
from libragrad_lightning.models.going_on import logits_behind, logits_of_tokens_alone
from libragrad_lightning.models.hooks import Enter, Leave, hooked_modules
from libragrad_lightning.models.image_axes import ImageAxis
from libragrad_lightning.models.inserting import inserted_patches
from libragrad_lightning.models.levels import Level, Point
from libragrad_lightning.models.logits import logits_of, matrix_of
from libragrad_lightning.models.noise import image_generators
from libragrad_lightning.models.processes import gathered, is_grouped
from libragrad_lightning.models.reading import read_token_model, submodule
from libragrad_lightning.models.recording import Recording
from libragrad_lightning.models.refusals import is_out_of_memory, unless_refused
from libragrad_lightning.models.sharding import (
    gathered_weights,
    is_sharded,
    own_weights,
    reduces_precision,
)
from libragrad_lightning.models.squashing import SQUASHING, Origins, called_with_origins
from libragrad_lightning.models.state import explanation_state
from libragrad_lightning.models.token_layouts import TokenLayout, possible_layouts
from libragrad_lightning.models.token_model import TokenModel

__all__ = [
    "SQUASHING",
    "Axes",
    "Enter",
    "FeatureView",
    "Features",
    "ImageAxis",
    "JoinedView",
    "Leave",
    "Level",
    "Origins",
    "Point",
    "Recording",
    "TokenLayout",
    "TokenModel",
    "UnreadableModelError",
    "View",
    "WeightsTooLargeError",
    "called_with_origins",
    "explanation_state",
    "free_bytes",
    "gathered",
    "gathered_weights",
    "hooked_modules",
    "image_generators",
    "inserted_patches",
    "is_differentiable",
    "is_grouped",
    "is_out_of_memory",
    "is_sharded",
    "joined_features",
    "logits_behind",
    "logits_of",
    "logits_of_tokens_alone",
    "matrix_of",
    "only",
    "own_weights",
    "parts_of",
    "possible_layouts",
    "prefix_of",
    "read_token_model",
    "reduces_precision",
    "submodule",
    "unless_refused",
]
