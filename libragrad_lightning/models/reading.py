"""Finds the token backbone inside any module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from libragrad_lightning.models.errors import UnreadableModelError
from libragrad_lightning.models.token_model import TokenLayout, TokenModel


def read_token_model(
    module: nn.Module,
    backbone: str | None = None,
    forward: Callable[[Tensor], Any] | None = None,
) -> TokenModel:
    """Read a module as a token model.

    Args:
        module: The model, or any module that holds it, such as a LightningModule.
        backbone: Path of the backbone in `module` (as in `get_submodule`), found if omitted.
        forward: Images to logits; `module` itself by default.

    Raises:
        UnreadableModelError: If there is no backbone with tokens, or more than one.
    """
    path = find_backbone(module) if backbone is None else backbone
    return TokenModel(forward or module, read_layout(_submodule(module, path)))


def find_backbone(module: nn.Module) -> str:
    """Return the path of the only outermost token backbone in a module (empty: the module itself).

    Raises:
        UnreadableModelError: If there is none, or more than one.
    """
    paths: list[str] = []
    for path, candidate in module.named_modules():
        inside = any(path.startswith(f"{p}." if p else "") for p in paths)
        if not inside and _has_tokens(candidate):
            paths.append(path)
    if not paths:
        raise UnreadableModelError(
            f"No backbone with tokens was found in {type(module).__name__} (looked for a module "
            "with `patch_embed` and `blocks`, such as timm's VisionTransformer); pass its path as "
            "`backbone`."
        )
    if len(paths) > 1:
        raise UnreadableModelError(
            f"{type(module).__name__} holds several backbones ({', '.join(paths)}); pass the path "
            "of the one to explain as `backbone`."
        )
    return paths[0]


def read_layout(backbone: nn.Module) -> TokenLayout:
    """Read where the tokens of a backbone are.

    Raises:
        UnreadableModelError: If the module is not a token backbone.
    """
    if not _has_tokens(backbone):
        raise UnreadableModelError(
            f"{type(backbone).__name__} has no `patch_embed` and `blocks` whose inputs are tokens "
            "[B, T, D]; pass the path of a timm VisionTransformer as `backbone`."
        )
    blocks = tuple(backbone.get_submodule("blocks").children())
    norm_pre = getattr(backbone, "norm_pre", None)
    entry = norm_pre if isinstance(norm_pre, nn.Module) else blocks[0]
    return TokenLayout(entry, blocks, int(getattr(backbone, "num_prefix_tokens", 0)))


def _has_tokens(module: nn.Module) -> bool:
    blocks = getattr(module, "blocks", None)
    return (
        isinstance(getattr(module, "patch_embed", None), nn.Module)
        and isinstance(blocks, nn.ModuleList | nn.Sequential)
        and len(blocks) > 0
    )


def _submodule(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError:
        children = ", ".join(name for name, _ in module.named_children())
        raise UnreadableModelError(
            f"{type(module).__name__} has no submodule {path!r}; pass the path of the backbone as "
            f"`backbone` (children: {children})."
        ) from None
