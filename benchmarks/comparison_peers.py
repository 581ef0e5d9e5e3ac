"""What a user of each library writes to explain the same images of the same vision transformer.

The body of every function is counted as the lines that a user writes. Each returns maps
`[B, h, w]`, and what they add up to in all, in logits `[B]`, if the method claims that they do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Answer: TypeAlias = "tuple[Tensor, Tensor | None]"
PATCH, GRID = 14, 8


def ours(model: nn.Module, images: Tensor, labels: Tensor) -> Answer:
    from libragrad_lightning import explain

    found = explain(model, images, target=labels, reward="logit", progress=False)
    return found.attribution, found.target_logit + found.residuals[0]


def ours_attn_lrp(model: nn.Module, images: Tensor, labels: Tensor) -> Answer:
    from libragrad_lightning import explain

    found = explain(model, images, target=labels, reward="logit", rules="attn_lrp", progress=False)
    return found.attribution, found.target_logit + found.residuals[0]


def ours_plain(model: nn.Module, images: Tensor, labels: Tensor) -> Answer:
    from libragrad_lightning import explain

    found = explain(model, images, target=labels, reward="logit", rules="plain", progress=False)
    return found.attribution, found.target_logit + found.residuals[0]


def captum_input_x_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Answer:
    from captum.attr import InputXGradient

    maps = InputXGradient(model).attribute(images, target=labels).sum(1).detach()
    return maps, maps.sum((1, 2))


def captum_integrated_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> Answer:
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(model)
    found = method.attribute(images, target=labels, n_steps=20, internal_batch_size=len(images))
    nothing = model(torch.zeros_like(images[:1])).detach()[0, labels]
    return found.sum(1).detach(), found.sum((1, 2, 3)).detach() + nothing


def captum_ablation(model: nn.Module, images: Tensor, labels: Tensor) -> Answer:
    from captum.attr import FeatureAblation

    patches = torch.arange(GRID**2).view(1, 1, GRID, GRID)
    groups = patches.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    maps = FeatureAblation(model).attribute(images, target=labels, feature_mask=groups)
    return maps[:, 0, ::PATCH, ::PATCH], None


def torch_cam(model: nn.Module, images: Tensor, labels: Tensor) -> Answer:
    from torchcam.methods import GradCAM

    with GradCAM(model, target_layer=model.get_submodule("patch_embed.proj")) as method:
        (maps,) = method(labels.tolist(), model(images))
    return maps, None


def pytorch_grad_cam(model: nn.Module, images: Tensor, labels: Tensor) -> Answer:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def grid(tokens: Tensor) -> Tensor:
        return tokens[:, 1:].reshape(len(tokens), GRID, GRID, -1).permute(0, 3, 1, 2)

    layers = [model.get_submodule("blocks.11.norm1")]
    with GradCAM(model=model, target_layers=layers, reshape_transform=grid) as method:
        maps = method(images, [ClassifierOutputTarget(int(label)) for label in labels])
    return torch.from_numpy(maps), None


def zennit(model: nn.Module, images: Tensor, labels: Tensor) -> Answer:
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlusFlat

    with Gradient(model=model, composite=EpsilonPlusFlat()) as method:
        _, relevance = method(images, torch.eye(20, dtype=images.dtype)[labels])
    return relevance.sum(1), relevance.sum((1, 2, 3))


def lxt(model: nn.Module, images: Tensor, labels: Tensor) -> Answer:
    from lxt.efficient import monkey_patch, monkey_patch_zennit
    from torchvision.models import vision_transformer
    from zennit.composites import LayerMapComposite
    from zennit.rules import Gamma

    from comparison_model import as_torchvision

    monkey_patch(vision_transformer)
    monkey_patch_zennit()
    twin = as_torchvision(model).eval()
    composite = LayerMapComposite([(nn.Conv2d, Gamma(0.25)), (nn.Linear, Gamma(0.05))])
    composite.register(twin)
    inputs = images.clone().requires_grad_()
    twin(inputs).gather(1, labels[:, None]).sum().backward()
    composite.remove()
    relevance = (inputs * inputs.grad).sum(1).detach()
    return relevance, relevance.sum((1, 2))


def xplique(model: nn.Module, images: Tensor, labels: Tensor) -> Answer:
    import tensorflow as tf
    from xplique.attributions import GradientInput
    from xplique.wrappers import TorchWrapper

    wrapped = TorchWrapper(model, device="cpu", is_channel_first=True)
    inputs, targets = images.permute(0, 2, 3, 1).numpy(), tf.one_hot(labels.numpy(), 20)
    found = torch.from_numpy(GradientInput(wrapped, batch_size=16)(inputs, targets).numpy())
    return found.reshape(len(images), *images.shape[2:], -1).sum(3), None


@dataclass(frozen=True)
class Method:
    """A method of a library.

    Attributes:
        library: Its name on the package index.
        name: Its name in the tables.
        explain: Explains images.
    """

    library: str
    name: str
    explain: Callable[[Any, Tensor, Tensor], Answer]


OURS = "libragrad-lightning"
METHODS = {
    method.explain.__name__: method
    for method in (
        Method(OURS, "FullGrad+ under LibraGrad (default)", ours),
        Method(OURS, "FullGrad+ under AttnLRP's rules", ours_attn_lrp),
        Method(OURS, "FullGrad+, plain gradients", ours_plain),
        Method("captum", "Input x Gradient", captum_input_x_gradient),
        Method("captum", "Integrated Gradients, 20 steps", captum_integrated_gradients),
        Method("captum", "Feature Ablation, patch by patch", captum_ablation),
        Method("torchcam", "Grad-CAM on the patch embedding", torch_cam),
        Method("grad-cam", "Grad-CAM", pytorch_grad_cam),
        Method("zennit", "LRP, EpsilonPlusFlat", zennit),
        Method("lxt", "AttnLRP, gamma 0.25 and 0.05", lxt),
        Method("xplique", "Gradient x Input", xplique),
    )
}
LIBRARIES = (
    OURS, "captum", "quantus", "torchcam", "grad-cam", "zennit", "lxt", "xplique", "foxai",
    "luxonis-train",
)  # fmt: skip
