"""Models of timm by name, beside any build of torchvision."""

import libragrad_lightning  # noqa: F401  (mends torchvision before timm imports it)

# isort: split
from timm import create_model, list_models

__all__ = ["create_model", "list_models"]
