"""The model that libraries are compared on, and its twin in torchvision, which LXT asks for."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer


def trained(weights: Path) -> nn.Module:
    """Return the vision transformer whose weights were saved."""
    model = timm.create_model("vit_small_patch14_dinov2", img_size=112, num_classes=20)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def _block(model: nn.Module, number: int) -> dict[str, Tensor]:
    """Return the weights of a block; torchvision has no layer scale, so linear maps take it in."""
    block = model.get_submodule(f"blocks.{number}")
    state = block.state_dict()
    to = f"encoder.layers.encoder_layer_{number}."
    named = {
        "self_attention.in_proj_weight": state["attn.qkv.weight"],
        "self_attention.in_proj_bias": state["attn.qkv.bias"],
        "self_attention.out_proj.weight": state["ls1.gamma"][:, None] * state["attn.proj.weight"],
        "self_attention.out_proj.bias": state["ls1.gamma"] * state["attn.proj.bias"],
        "mlp.0.weight": state["mlp.fc1.weight"],
        "mlp.0.bias": state["mlp.fc1.bias"],
        "mlp.3.weight": state["ls2.gamma"][:, None] * state["mlp.fc2.weight"],
        "mlp.3.bias": state["ls2.gamma"] * state["mlp.fc2.bias"],
    }
    for ours, theirs in (("norm1", "ln_1"), ("norm2", "ln_2")):
        named |= {f"{theirs}.{part}": state[f"{ours}.{part}"] for part in ("weight", "bias")}
    return {f"{to}{name}": value for name, value in named.items()}


def as_torchvision(model: nn.Module) -> VisionTransformer:
    """Return the model as torchvision builds it: the same logits."""
    twin = VisionTransformer(112, 14, 12, 6, 384, 1536, num_classes=20)
    state = model.state_dict()
    named = {
        "class_token": state["cls_token"],
        "encoder.pos_embedding": state["pos_embed"],
        "conv_proj.weight": state["patch_embed.proj.weight"],
        "conv_proj.bias": state["patch_embed.proj.bias"],
    }
    for ours, theirs in (("norm", "encoder.ln"), ("head", "heads.head")):
        named |= {f"{theirs}.{part}": state[f"{ours}.{part}"] for part in ("weight", "bias")}
    for number in range(12):
        named |= _block(model, number)
    twin.load_state_dict(named)
    return twin.to(state["cls_token"].dtype)
