"""How to read a model: tokens, blocks, prefix tokens, grid; and how to leave it undisturbed."""

from libragrad_lightning.models.errors import UnreadableModelError
from libragrad_lightning.models.reading import find_backbone, read_layout, read_token_model
from libragrad_lightning.models.state import explanation_state
from libragrad_lightning.models.token_model import Recording, TokenLayout, TokenModel, logits_of

__all__ = [
    "Recording",
    "TokenLayout",
    "TokenModel",
    "UnreadableModelError",
    "explanation_state",
    "find_backbone",
    "logits_of",
    "read_layout",
    "read_token_model",
]
