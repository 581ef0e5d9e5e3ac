"""How exact LibraGrad is on whole models on a device, and whether its maps are those of the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from completeness import decompose_model
from cuda_findings import Finding, Setup, failed
from libragrad_lightning import explain
from libragrad_lightning.backward import LIBRA, PLAIN
from libragrad_lightning.diagnosis.random_constants import draw_constants
from timm_models import create_model

DOUBLE, SINGLE = 1e-11, 2e-6
"""The largest difference in each precision, relative to the logit and to all contributions."""
LARGEST_MAP_DIFFERENCE = 1e-4
"""Between devices in float32, relative to the largest value of the map; or three times what a unit
in the last place of the pixels does: some models of random weights are less steady than that."""


@dataclass(frozen=True)
class Model:
    """A model of timm.

    Attributes:
        name: Its name.
        double: Whether it is tried in float64, too.
        channels_last: Whether weights and images have this memory format.
    """

    name: str
    double: bool = True
    channels_last: bool = False

    def __str__(self) -> str:
        return self.name + (", channels last" if self.channels_last else "")


TINY = [Model("test_vit"), Model("test_convnext"), Model("test_resnet", channels_last=True)]
MODELS = [
    Model("vit_small_patch16_224"),
    Model("vit_base_patch16_224"),
    Model("vit_large_patch16_224", double=False),
    Model("deit3_small_patch16_224"),
    Model("eva02_small_patch14_224"),
    Model("vit_small_patch16_dinov3"),
    Model("vit_base_patch16_siglip_224", double=False),
    Model("swin_tiny_patch4_window7_224"),
    Model("swinv2_tiny_window8_256"),
    Model("maxvit_tiny_tf_224"),
    Model("convnext_tiny"),
    Model("convnext_tiny", double=False, channels_last=True),
    Model("resnet50"),
    Model("resnet50", double=False, channels_last=True),
    Model("resnet50_gn"),
    Model("efficientnet_b0"),
    Model("mixer_s32_224"),
    Model("xcit_nano_12_p16_224"),
    Model("pvt_v2_b0"),
    Model("hiera_tiny_224"),
]


def model_findings(setup: Setup) -> Iterator[Finding]:
    """Yield the findings of all models."""
    for model in TINY if setup.tiny else MODELS:
        try:
            yield from _findings_of(model, setup)
        except Exception as error:  # one model says nothing about the others
            yield failed(str(model), error)


def _findings_of(model: Model, setup: Setup) -> Iterator[Finding]:
    module, images = drawn(model)
    with exact_float32():
        on_cpu = explained(module, images)
        steady = distance(explained(module, one_unit_away(images)), on_cpu)
        layout = torch.channels_last if model.channels_last else torch.contiguous_format
        module = module.to(setup.device, memory_format=layout)
        images = images.to(setup.device, memory_format=layout)
        yield Finding(
            f"{model}: map beside the CPU's",
            distance(explained(module, images), on_cpu),
            max(LARGEST_MAP_DIFFERENCE, 3 * steady),
            f"one unit in the last place of the pixels moves it by {steady:.0e}",
        )
        found = decompose_model(module, images, (LIBRA, PLAIN))
        libra, plain = found.decompositions
        note = _remarks(found.graph.unknown(), found.identical) or f"plain {plain.noise:.1e}"
        yield Finding(f"{model}: float32", libra.noise, SINGLE, note)
        if model.double:
            found = decompose_model(module.double(), images.double(), (LIBRA,))
            error = found.decompositions[0].error
            note = _remarks(found.graph.unknown(), found.identical)
            yield Finding(f"{model}: float64", error, DOUBLE, note)
    if setup.on_cuda:
        yield _with_tensor_cores(model, module.float(), images)


def explained(module: nn.Module, images: Tensor) -> Tensor:
    """Return the maps of FullGrad+ under LIBRA, `[B, h, w]`, on the CPU."""
    return explain(module, images, progress=False).attribution.cpu()


def one_unit_away(images: Tensor) -> Tensor:
    """Return images whose pixels are moved by a unit in the last place, up or down."""
    signs = torch.randn(images.shape, generator=torch.Generator().manual_seed(1)).sign()
    return images * (1 + torch.finfo(images.dtype).eps * signs.to(images))


def distance(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the other's largest value."""
    return float((one - other).abs().max() / other.abs().max())


def _with_tensor_cores(model: Model, module: nn.Module, images: Tensor) -> Finding:
    """Return the residual with what torch does by default: TF32 in convolutions."""
    noise = decompose_model(module, images, (LIBRA,)).decompositions[0].noise
    return Finding(f"{model}: float32 with torch's defaults (TF32 in convolutions)", noise)


def _remarks(unknown: dict[str, int], identical: bool) -> str:
    said = [f"UNKNOWN {name} x{count}" for name, count in unknown.items()]
    return "; ".join(said if identical else [*said, "logits differ from an ordinary pass"])


def drawn(model: Model) -> tuple[nn.Module, Tensor]:
    """Return a model with random constants on the CPU, and two images `[2, 3, H, W]`."""
    torch.manual_seed(0)
    module = create_model(model.name, num_classes=10).eval()
    images = torch.randn(2, *module.pretrained_cfg["input_size"])
    draw_constants(module, images)
    return module, images


@contextmanager
def exact_float32() -> Iterator[None]:
    """Keep convolutions and products from TF32."""
    products = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = products
