"""Small models of other libraries, built without downloads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torchvision
import transformers
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn

TRANSFORMER = {
    "image_size": 64,
    "patch_size": 16,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "num_labels": 7,
}
SWIN = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "num_labels": 7,
}
TEXT = CLIPTextCfg(context_length=8, vocab_size=32, width=16, heads=2, layers=1)


@dataclass(frozen=True)
class LibraryModel:
    """A model of another library.

    Attributes:
        build: Makes it.
        scores: From what it returns to scores `[B, K]`: logits, or an embedding.
    """

    build: Callable[[], nn.Module]
    scores: Callable[[Any], Tensor] = lambda output: output


def _transformers(kind: str, attention: str, **config: Any) -> LibraryModel:
    model = getattr(transformers, f"{kind}ForImageClassification")
    settings = getattr(transformers, f"{kind}Config")(**config, attn_implementation=attention)
    return LibraryModel(lambda: model(settings), lambda output: output.logits)


def _open_clip_tower(**vision: Any) -> LibraryModel:
    return LibraryModel(
        lambda: CLIP(24, CLIPVisionCfg(image_size=64, **vision), TEXT, quick_gelu=False).visual
    )


MODELS: dict[str, LibraryModel] = {
    "torchvision-vit_b_16": LibraryModel(
        lambda: torchvision.models.vit_b_16(weights=None, image_size=64)
    ),
    "torchvision-swin_v2_t": LibraryModel(lambda: torchvision.models.swin_v2_t(weights=None)),
    "torchvision-convnext_tiny": LibraryModel(
        lambda: torchvision.models.convnext_tiny(weights=None)
    ),
    "open_clip-vit": _open_clip_tower(layers=3, width=48, head_width=12, patch_size=16),
    "open_clip-resnet": _open_clip_tower(layers=[1, 1, 1, 1], width=16, head_width=16),
    "open_clip-timm": _open_clip_tower(timm_model_name="test_vit", timm_pool="avg"),
}
for _attention in ("eager", "sdpa"):
    MODELS |= {
        f"transformers-vit-{_attention}": _transformers("ViT", _attention, **TRANSFORMER),
        f"transformers-dinov2-{_attention}": _transformers("Dinov2", _attention, **TRANSFORMER),
        f"transformers-dinov2-swiglu-{_attention}": _transformers(
            "Dinov2", _attention, **TRANSFORMER, use_swiglu_ffn=True
        ),
        f"transformers-beit-{_attention}": _transformers(
            "Beit", _attention, **TRANSFORMER, use_relative_position_bias=True
        ),
        f"transformers-swin-{_attention}": _transformers("Swin", _attention, **SWIN),
    }
