"""Vision models of transformers: all that classify images, and towers of many others."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import partial
from typing import Any

import transformers
from torch import Tensor, nn

from place_models import PlaceModel, Size

_CLASSES = 7
_PLAIN = {
    "image_size": 64,
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
_STAGES = {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]}
_WINDOWS = {"image_size": 64, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2]}
_SIZES: tuple[Size, ...] = ((64, 64), (64, 96))
Settings = dict[str, Any]


class ClassifiedPatches(nn.Module):
    """Gives a model patches of images and what belongs to them, as its processor would."""

    def __init__(self, model: nn.Module, patch: int) -> None:
        super().__init__()
        self.model, self.patch = model, patch

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]`."""
        p = self.patch
        cells = images.unfold(2, p, p).unfold(3, p, p)
        rows, columns = cells.shape[2:4]
        patches = cells.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        shapes = images.new_tensor([[rows, columns]] * len(images)).long()
        mask = patches.new_ones(patches.shape[:2]).long()
        logits: Tensor = self.model(
            pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=shapes
        ).logits
        return logits


class PackedTower(nn.Module):
    """Takes the mean of each image of a tower that returns the tokens of all images in one row."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return scores `[B, D]`."""
        tokens: Tensor = self.model(images).last_hidden_state[0]
        return tokens.unflatten(0, (len(images), -1)).mean(1)


def models() -> Iterator[PlaceModel]:
    """Yield every model, square and, if it accepts that, wide."""
    for label, settings in _classifiers():
        kind = label.partition("-")[0]
        for size in _SIZES:
            build = partial(_classifier, kind, {**settings, **_sized(settings, size)})
            yield _model(label, build, size)
    for label, cls, settings in _towers():
        for size in _SIZES:
            build = partial(_tower, cls, {**settings, **_sized(settings, size)})
            yield _model(label, build, size, _pooled)
    for label, build, size in _others():
        yield _model(label, build, size)


def _model(label: str, build: partial[nn.Module], size: Size, scores: Any = None) -> PlaceModel:
    return PlaceModel("transformers", label, build, size, scores, optional=size[0] != size[1])


def _sized(settings: Settings, size: Size) -> Settings:
    if size[0] == size[1] or "image_size" not in settings:
        return {}
    return {"image_size": list(size)}


def _pooled(output: Any) -> Tensor:
    """Return the mean of what a tower returns as scores."""
    features = output[0] if not hasattr(output, "last_hidden_state") else output.last_hidden_state
    if isinstance(features, (list, tuple)):
        features = features[-1]
    axes = (2, 3) if features.dim() == 4 else 1
    mean: Tensor = features.mean(axes)
    return mean


def _classifier(kind: str, settings: Settings) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(num_labels=_CLASSES, **settings)
    model: nn.Module = getattr(transformers, f"{kind}ForImageClassification")(config)
    return model


def _tower(cls: str, settings: Settings) -> nn.Module:
    kind = getattr(transformers, cls, None) or _by_name(cls)
    model: nn.Module = kind(kind.config_class(**settings))
    return model


def _by_name(cls: str) -> Any:
    from transformers.models import sam, sam2, sam_hq

    for package in (sam, sam2, sam_hq):
        if hasattr(package, cls):
            return getattr(package, cls)
    raise AttributeError(f"transformers has no {cls}")


def _classifiers() -> Iterator[tuple[str, Settings]]:
    """Yield kinds, with what tells them apart, and settings of models that classify."""
    yield "ViT", _PLAIN
    yield "ViT-pooled", {**_PLAIN, "qkv_bias": False}
    yield "DeiT", _PLAIN
    yield "ViTMSN", _PLAIN
    yield "IJepa", _PLAIN
    for kind in ("Beit", "Data2VecVision"):
        yield kind, {**_PLAIN, "use_relative_position_bias": True}
        yield f"{kind}-absolute", {**_PLAIN, "use_absolute_position_embeddings": True}
    yield "Beit-class-token", {**_PLAIN, "use_mean_pooling": False}
    yield "Beit-shared", {**_PLAIN, "use_shared_relative_position_bias": True}
    dino = {k: v for k, v in _PLAIN.items() if k != "intermediate_size"}
    yield "Dinov2", dino
    yield "Dinov2-swiglu", {**dino, "use_swiglu_ffn": True}
    yield "Dinov2-cropped", {**dino, "patch_size": 14}
    for registers in (1, 4, 9):
        yield f"Dinov2WithRegisters-{registers}", {**dino, "num_register_tokens": registers}
    for window in (4, 8):
        for kind in ("Swin", "Swinv2", "DonutSwin"):
            yield f"{kind}-{window}", {**_WINDOWS, "window_size": window}
    yield "Swin-absolute", {**_WINDOWS, "window_size": 4, "use_absolute_embeddings": True}
    yield "Swin-padded", {**_WINDOWS, "window_size": 3}
    yield "ConvNext", _STAGES
    yield "ConvNextV2", _STAGES
    yield "Pvt", {**_STAGES, "image_size": 64, "num_attention_heads": [1, 2, 2, 2]}
    pvt = {**_STAGES, "num_attention_heads": [1, 2, 2, 2], "mlp_ratios": [2, 2, 2, 2]}
    yield "PvtV2", pvt
    yield "PvtV2-linear", {**pvt, "linear_attention": True}
    yield "Segformer", pvt
    yield "Cvt", {"embed_dim": [16, 32, 32], "num_heads": [1, 2, 2], "depth": [1, 2, 3]}
    levit = {"hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 2, 2], "depths": [2, 2, 2]}
    down = [["Subsample", 16, 2, 4, 2, 2], ["Subsample", 16, 3, 4, 2, 2]]
    yield "Levit", {**levit, "image_size": 64, "down_ops": down}
    mobile = {"hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 64]}
    yield "MobileViT", {**mobile, "image_size": 64, "num_attention_heads": 2}
    yield "MobileViTV2", {"image_size": 64, "width_multiplier": 0.25}
    for kind in ("MobileNetV1", "MobileNetV2"):
        yield kind, {"depth_multiplier": 0.25}
        yield f"{kind}-even-padding", {"depth_multiplier": 0.25, "tf_padding": False}
    for layer in ("x", "y"):
        yield (
            f"RegNet-{layer}",
            {**_STAGES, "embedding_size": 16, "groups_width": 8, "layer_type": layer},
        )
    for layer in ("basic", "bottleneck"):
        yield f"ResNet-{layer}", {**_STAGES, "embedding_size": 16, "layer_type": layer}
    bit = {**_STAGES, "embedding_size": 16, "num_groups": 4}
    yield "Bit", bit
    yield "Bit-bottleneck", {**bit, "layer_type": "bottleneck"}
    yield "Bit-same", {**bit, "global_padding": "same"}
    yield "PoolFormer", _STAGES
    focal = {"image_size": 64, "embed_dim": 16, "hidden_sizes": [16, 32], "depths": [1, 2]}
    focal |= {"focal_levels": [2, 2], "focal_windows": [3, 3]}
    yield "FocalNet", focal
    yield "FocalNet-overlapping", {**focal, "use_conv_embed": True}
    yield "FocalNet-post-norm", {**focal, "use_post_layernorm": True, "use_layerscale": True}
    yield "EfficientNet", {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320}
    masked = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2]}
    yield "Hiera", {**masked, "image_size": [64, 64], "masked_unit_size": [8, 8]}
    swift = {"embed_dims": [16, 16, 32, 32], "depths": [2, 1, 2, 1]}
    yield "SwiftFormer", swift
    yield "TextNet", {"stem_out_channels": 16, "hidden_sizes": [16, 16, 16, 32, 32]}
    yield "HGNetV2", {}
    for kind in ("CLIP", "Siglip", "MetaClip2"):
        yield kind, {"vision_config": {**_PLAIN, "projection_dim": 16}}


def _towers() -> Iterator[tuple[str, str, Settings]]:
    """Yield names, classes and settings of towers whose mean is taken for scores."""
    yield "DINOv3ViT", "DINOv3ViTModel", _PLAIN
    yield "DINOv3ViT-registers", "DINOv3ViTModel", {**_PLAIN, "num_register_tokens": 4}
    yield "DINOv3ConvNext", "DINOv3ConvNextModel", _STAGES
    for kind in (
        "CLIPVisionModel", "SiglipVisionModel", "ChineseCLIPVisionModel", "AltCLIPVisionModel",
        "CLIPSegVisionModel", "BlipVisionModel", "Blip2VisionModel", "InstructBlipVisionModel",
        "GitVisionModel", "OwlViTVisionModel", "Owlv2VisionModel", "MLCDVisionModel",
        "Aimv2VisionModel", "JanusVisionModel", "MetaClip2VisionModel",
        "YolosModel", "DPTModel", "VitDetModel", "VitPoseBackbone", "RadioModel",
        "Tipsv2VisionModel", "GroupViTVisionModel",
        "LwDetrViTBackbone", "RfDetrDinov2Backbone", "Sam3ViTModel", "SamVisionModel",
        "SamHQVisionModel", "MgpstrModel", "Idefics3VisionTransformer", "InternVLVisionModel",
    ):  # fmt: skip
        yield kind, kind, {**_PLAIN, **_SPECIAL.get(kind, {})}
    yield "GLPN", "GLPNModel", {**_STAGES, "num_attention_heads": [1, 2, 2, 2]}
    yield "MaskFormerSwin", "MaskFormerSwinModel", {**_WINDOWS, "window_size": 4}
    yield "Swin2SR", "Swin2SRModel", {**_WINDOWS, "window_size": 4, "patch_size": 1}
    stages = {
        "hidden_size": 16,
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
    }
    stages |= {"num_attention_heads_per_stage": [1, 1, 2, 2], "image_size": [64, 64]}
    yield "Sam2Hiera", "Sam2HieraDetModel", stages
    yield (
        "Florence2",
        "Florence2VisionBackbone",
        {"embed_dim": [16, 16, 32, 32], "depths": [1, 1, 1, 1]},
    )


_SPECIAL: dict[str, Settings] = {
    "DPTModel": {"is_hybrid": False},
    "InternVLVisionModel": {"image_size": [64, 64], "patch_size": [16, 16]},
    "YolosModel": {"image_size": [64, 64], "num_detection_tokens": 5},
    "VitPoseBackbone": {"image_size": [64, 64], "patch_size": [16, 16]},
    "SamVisionModel": {"global_attn_indexes": [1], "window_size": 2, "output_channels": 16},
    "SamHQVisionModel": {"global_attn_indexes": [1], "window_size": 2, "output_channels": 16},
    "GroupViTVisionModel": {
        "depths": [1, 1],
        "num_group_tokens": [8, 0],
        "num_output_groups": [4, 4],
    },
    "MgpstrModel": {"image_size": [64, 64], "patch_size": 16},
    "VitDetModel": {"window_block_indices": [0], "window_size": 2},
}


def _others() -> Iterator[tuple[str, partial[nn.Module], Size]]:
    """Yield models that are built in ways of their own."""
    perceiver = {"num_latents": 8, "d_latents": 32, "num_self_attends_per_block": 2}
    perceiver |= {"num_self_attention_heads": 2, "num_cross_attention_heads": 1}
    yield "PerceiverConv", partial(_perceiver, "ConvProcessing", perceiver), (224, 224)
    sixteen = {**perceiver, "num_latents": 16}
    yield "PerceiverConv-16", partial(_perceiver, "ConvProcessing", sixteen), (224, 224)
    for size in _SIZES:
        yield "Pixtral", partial(_pixtral), size
        yield "Siglip2", partial(_siglip2), size
        for name in ("test_vit", "test_convnext", "test_resnet"):
            yield f"TimmWrapper-{name}", partial(_timm_wrapper, name), (160, size[1] * 5 // 2)
    if importlib.util.find_spec("natten"):
        yield "Dinat", partial(_classifier, "Dinat", {"embed_dim": 16, "depths": [1, 1]}), (64, 64)


def _perceiver(kind: str, settings: Settings) -> nn.Module:
    config = transformers.PerceiverConfig(num_labels=_CLASSES, **settings)
    model: nn.Module = getattr(transformers, f"PerceiverForImageClassification{kind}")(config)
    return model


def _siglip2() -> nn.Module:
    vision = {k: v for k, v in _PLAIN.items() if k != "image_size"}
    config = transformers.Siglip2Config(
        vision_config={**vision, "num_patches": 16}, num_labels=_CLASSES
    )
    return ClassifiedPatches(transformers.Siglip2ForImageClassification(config), 16)


def _pixtral() -> nn.Module:
    return PackedTower(_tower("PixtralVisionModel", _PLAIN))


def _timm_wrapper(name: str) -> nn.Module:
    config = transformers.TimmWrapperConfig(architecture=name, num_labels=_CLASSES)
    model: nn.Module = transformers.TimmWrapperForImageClassification(config)
    return model
