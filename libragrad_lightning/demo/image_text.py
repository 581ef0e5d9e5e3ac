"""A model of images and texts: two encoders into one space, as CLIP and SigLIP have them."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from libragrad_lightning.demo.conv_stem import ConvStem


class ImageTextModel(nn.Module):
    """A timm model for images and a small transformer for texts.

    Args:
        model_name: A name that `timm.create_model` knows, of a vision transformer.
        model_kwargs: Further arguments of `timm.create_model`, such as `img_size`.
        vocabulary: How many ids texts consist of.
        context: How many ids a text has; those behind the last one that is not 0 are padding.
        dim: Dimensions of the space.
        text_width: Width of the text transformer.
        text_depth: Its number of blocks.

    Attributes:
        logit_scale: Logarithm of what cosines are multiplied by, 5. It is not learned: a larger one
            makes the softmax certain before embeddings are far apart, and then a color decides.
    """

    def __init__(
        self,
        model_name: str,
        model_kwargs: dict[str, Any],
        vocabulary: int,
        context: int,
        dim: int = 64,
        text_width: int = 64,
        text_depth: int = 2,
    ) -> None:
        super().__init__()
        self.image: Any = timm.create_model(
            model_name, num_classes=dim, embed_layer=ConvStem, pos_embed="none", **model_kwargs
        )
        self.text = TextTransformer(vocabulary, context, dim, text_width, text_depth)
        self.logit_scale: Tensor
        self.register_buffer("logit_scale", torch.tensor(5.0).log())

    def encode_image(self, images: Tensor) -> Tensor:
        """Return embeddings `[B, D]` of images `[B, 3, H, W]`."""
        size, patch = images.shape[-1], self.image.patch_embed.patch_size[0]
        nearness = _nearness(size // patch, self.image.blocks[0].attn.num_heads)
        found: Tensor = self.image(images, attn_mask=nearness.to(images))
        return found

    def encode_text(self, ids: Tensor) -> Tensor:
        """Return embeddings `[T, D]` of texts as ids `[T, L]`."""
        found: Tensor = self.text(ids)
        return found

    def forward(self, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings of length one of images `[B, 3, H, W]` and of texts `[T, L]`."""
        return (
            nn.functional.normalize(self.encode_image(images), dim=-1),
            nn.functional.normalize(self.encode_text(ids), dim=-1),
        )


class TextTransformer(nn.Module):
    """A transformer whose tokens are averaged.

    Args:
        vocabulary: How many ids there are; 0 is padding.
        context: How many ids a text has at most.
        dim: Dimensions of what is returned.
        width: Its width.
        depth: Its number of blocks.
    """

    def __init__(self, vocabulary: int, context: int, dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.02 * torch.randn(context, width))
        block = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, dim)
        nn.init.normal_(self.embedding.weight, std=0.3)

    def forward(self, ids: Tensor) -> Tensor:
        """Return embeddings `[T, dim]` of ids `[T, L]`."""
        there = ids != 0
        tokens = self.embedding(ids) + self.positions[: ids.shape[1]]
        tokens = self.norm(self.blocks(tokens, src_key_padding_mask=~there))
        weights = there / there.sum(1, keepdim=True)
        return self.head((weights[:, :, None] * tokens).sum(1))


def _nearness(side: int, heads: int) -> Tensor:
    """Return what is added to attention scores, `[1, heads, N, N]`, N = side².

    Attention falls by 1/e with every 1/2, 1, 2, ... patches of distance, another distance in each
    head (Press et al. 2022, in two dimensions).
    """
    place = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
    return -(2.0 ** (1 - torch.arange(heads)))[None, :, None, None] * torch.cdist(place, place)
