"""Small models of images and texts, built without downloads, with their tokenizers."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
import transformers
from open_clip import SimpleTokenizer
from open_clip.coca_model import CoCa, MultimodalCfg
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from torch import Tensor, nn

from libragrad_lightning.diagnosis.random_constants import draw_constants

CONTEXT = 16
TOKENIZER = SimpleTokenizer(context_length=CONTEXT)
TEXT = {"context_length": CONTEXT, "width": 24, "heads": 2, "layers": 2}
VIT = {"image_size": 64, "layers": 3, "width": 48, "head_width": 12, "patch_size": 16}
HF_TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 52,
    "eos_token_id": 53,
    "pad_token_id": 53,
}
HF_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
}
PROMPTS = ("a cat", "two dogs", "a red bus!", "snow")


def letters() -> transformers.CLIPTokenizer:
    """Return a tokenizer of transformers whose words are spelled."""
    tokens = [*string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase)]
    tokens += ["<|startoftext|>", "<|endoftext|>", "!", "!</w>"]
    return transformers.CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[])


@dataclass(frozen=True)
class DualModel:
    """A model of images and texts.

    Attributes:
        build: Makes it.
        size: Height and width of its images.
        tokenizer: Makes its tokenizer.
        has_words: Whether its text tower is worth a test of its own.
    """

    build: Callable[[], nn.Module]
    size: int = 64
    tokenizer: Callable[[], Any] = lambda: TOKENIZER
    has_words: bool = True


def _clip(**vision: Any) -> CLIP:
    return CLIP(24, CLIPVisionCfg(image_size=64, **vision), CLIPTextCfg(**TEXT))


def _eva() -> CustomTextCLIP:
    vision = CLIPVisionCfg(
        image_size=224, timm_model_name="eva02_tiny_patch14_224", timm_pool="token", timm_proj=None
    )
    model = CustomTextCLIP(24, vision, CLIPTextCfg(**TEXT))
    model.visual.trunk.blocks = model.visual.trunk.blocks[:2]
    return model


def _siglip() -> CustomTextCLIP:
    vision = CLIPVisionCfg(
        image_size=160, timm_model_name="test_vit4", timm_pool="map", timm_proj="none"
    )
    text = {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    return CustomTextCLIP(
        96, vision, CLIPTextCfg(**text), init_logit_scale=2.3, init_logit_bias=-10.0
    )


def _coca() -> CoCa:
    vision = CLIPVisionCfg(**VIT, attentional_pool=True, attn_pooler_heads=4, output_tokens=True)
    text = CLIPTextCfg(**TEXT, embed_cls=True, output_tokens=True)
    return CoCa(
        24, MultimodalCfg(width=24, context_length=CONTEXT, heads=2, layers=1), text, vision
    )


def _hf_clip() -> nn.Module:
    vision = {**HF_VISION, "image_size": 32}
    return transformers.CLIPModel(
        transformers.CLIPConfig(text_config=HF_TEXT, vision_config=vision, projection_dim=32)
    )


def _hf_siglip() -> nn.Module:
    vision = {**HF_VISION, "image_size": 32}
    return transformers.SiglipModel(
        transformers.SiglipConfig(text_config=HF_TEXT, vision_config=vision)
    )


def _hf_siglip2() -> nn.Module:
    vision = {**HF_VISION, "num_patches": 16}
    return transformers.Siglip2Model(
        transformers.Siglip2Config(text_config=HF_TEXT, vision_config=vision)
    )


MODELS: dict[str, DualModel] = {
    "open_clip-vit": DualModel(
        lambda: _clip(**{k: v for k, v in VIT.items() if k != "image_size"})
    ),
    "open_clip-resnet": DualModel(
        lambda: _clip(layers=[1, 1, 1, 1], width=16, head_width=16), has_words=False
    ),
    "open_clip-convnext": DualModel(
        lambda: _clip(timm_model_name="convnext_atto", timm_pool="", timm_proj="linear"),
        has_words=False,
    ),
    "open_clip-eva02": DualModel(_eva, 224, has_words=False),
    "open_clip-siglip": DualModel(_siglip, 160),
    "open_clip-coca": DualModel(_coca),
    "transformers-clip": DualModel(_hf_clip, 32, letters),
    "transformers-siglip": DualModel(_hf_siglip, 32, letters),
    "transformers-siglip2": DualModel(_hf_siglip2, 32, letters),
}


def randomized(name: str) -> nn.Module:
    """Return a model with random constants and its own scale, in evaluation mode."""
    torch.manual_seed(0)
    model = MODELS[name].build().eval()
    kept = {n: p.clone() for n, p in model.named_parameters() if n.startswith("logit")}
    tower = _Tower(model)
    draw_constants(tower, images(name, 0))
    with torch.no_grad():
        for label, value in kept.items():
            model.get_parameter(label).copy_(value)
    return model


class _Tower(nn.Module):
    """A model of images and texts as one of images, for the statistics of its batch norms."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> None:
        """Run the tower of images, if that is one of open_clip."""
        if hasattr(self.model, "visual"):
            self.model.visual(images)


def images(name: str, seed: int, count: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return noise of the size of a model's images."""
    generator = torch.Generator().manual_seed(seed)
    size = MODELS[name].size
    return torch.randn(count, 3, size, size, generator=generator).to(dtype)


class TextTower(nn.Module):
    """A small text transformer as people write it."""

    def __init__(self, vocabulary: int = 49408, width: int = 24, dimensions: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.1 * torch.randn(CONTEXT, width))
        layer = nn.TransformerEncoderLayer(
            width, 2, 2 * width, dropout=0.3, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, dimensions)

    def forward(self, ids: Tensor) -> Tensor:
        """Embed ids `[N, L]`."""
        tokens = self.blocks(self.embedding(ids) + self.positions)
        return self.head(tokens.mean(1))


def image_tower(dimensions: int = 16) -> nn.Module:
    """Return a small vision transformer that embeds images of 32 x 32 pixels."""
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2,
        num_classes=dimensions,
    )  # fmt: skip
