"""The image models of vit-pytorch, and the vision wrapper of x-transformers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from place_models import PlaceModel, Size

_CLASSES = 7
_SQUARE, _WIDE = (32, 32), (32, 48)
_PLAIN = {
    "patch_size": 8,
    "num_classes": _CLASSES,
    "dim": 32,
    "depth": 2,
    "heads": 2,
    "dim_head": 16,
    "mlp_dim": 48,
}


class Listed(nn.Module):
    """Gives a model that packs images of all sizes a list of them."""

    def __init__(self, model: nn.Module, **arguments: Any) -> None:
        super().__init__()
        self.model, self.arguments = model, arguments

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]`."""
        logits: Tensor = self.model(list(images), **self.arguments)
        return logits


def models() -> Iterator[PlaceModel]:
    """Yield every model of both packages."""
    for name, arguments, also_wide in _alike():
        module, _, cls = name.partition(":")
        label = "-".join([module, *(f"{k}={v}" for k, v in arguments.items())])
        for size in (_SQUARE, _WIDE) if also_wide else (_SQUARE,):
            build = partial(_plain, module, cls or "ViT", size, arguments)
            yield PlaceModel("vit-pytorch", label, build, size)
    for label, build, size in _others():
        yield PlaceModel("vit-pytorch", label, build, size)
    for label, wrapper, encoder in _X_TRANSFORMERS:
        build = partial(_x_transformer, wrapper, encoder)
        yield PlaceModel("x-transformers", label, build, _SQUARE)
        yield PlaceModel("x-transformers", label, build, (16, 32), optional=True)


def _class(module: str, cls: str) -> Any:
    return getattr(import_module(f"vit_pytorch.{module}"), cls)


def _plain(module: str, cls: str, size: Size, arguments: dict[str, Any]) -> nn.Module:
    image_size = size[0] if size[0] == size[1] else size
    settings = {"image_size": image_size, **_PLAIN, **arguments}
    model: nn.Module = _class(module, cls)(**{k: v for k, v in settings.items() if v is not None})
    return model


def _alike() -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield module and class, arguments, and whether images may be wide, of plain transformers."""
    for module in ("vit", "vit_for_small_dataset", "parallel_vit"):
        yield module, {}, True
    yield "deepvit:DeepViT", {}, False
    yield "vit", {"pool": "mean"}, True
    yield "vit", {"depth": 1}, True
    yield "deepvit:DeepViT", {"pool": "mean"}, False
    yield "parallel_vit", {"pool": "mean", "num_parallel_branches": 3}, True
    for module in (
        "simple_vit", "simple_vit_with_qk_norm", "simple_vit_with_patch_dropout",
        "simple_vit_with_register_tokens", "simple_flash_attn_vit",
        "simple_vit_with_value_residual",
        "simple_vit_orthog_residual_update", "simple_vit_with_relative_proj_pos_bias",
        "simple_vit_with_specialized_cls", "attn_residual_with_dca_simple_vit",
    ):  # fmt: skip
        yield f"{module}:SimpleViT", {}, True
    yield "simple_vit_with_register_tokens:SimpleViT", {"num_register_tokens": 1}, True
    yield "simple_vit_with_register_tokens:SimpleViT", {"num_register_tokens": 9}, True
    yield "simple_vit_with_sparse_gating:SimpleViTWithSparseGating", {}, True
    yield "simple_vit_attn_residual:SimpleViTAttnResidual", {}, True
    yield "simple_vit_with_fft:SimpleViT", {"freq_patch_size": 8}, True
    yield "simple_vit_with_hyper_connections:SimpleViT", {"num_residual_streams": 2}, True
    yield "simple_uvit:SimpleUViT", {"depth": 4}, True
    yield "simple_uvit:SimpleUViT", {"depth": 3, "num_register_tokens": 1}, True
    yield "cait:CaiT", {"cls_depth": 1}, False
    yield "xcit:XCiT", {"cls_depth": 1}, False
    yield "rvt:RvT", {}, False
    yield "rvt:RvT", {"use_rotary": False, "use_ds_conv": False, "use_glu": False}, False
    yield "vit_with_patch_dropout", {}, True
    yield "vit_with_patch_merger", {"patch_merge_num_tokens": 4}, True
    yield "vit_with_patch_merger", {"patch_merge_num_tokens": 4, "depth": 4}, True
    yield "vit_with_decorr", {}, True
    yield "vit_with_keel_post_ln", {}, True
    yield "learnable_memory_vit", {}, True
    yield "vit_5", {}, False
    yield "vat", {"num_register_tokens": 3}, True
    yield "mp3", {}, True
    yield "ats_vit", {"max_tokens_per_depth": (17, 12)}, True
    yield "normalized_vit:nViT", {}, True
    yield "jumbo_vit:JumboViT", {"dim": 48, "jumbo_cls_k": 3, "jumbo_ff_mult": 1}, True
    yield "jet_vit:JetViT", {"window_size": 2}, True
    yield "vit_detpool:ViTDetPool", {}, True
    yield "vit_detpool:ViTDetPool", {"use_cls_token": False}, True
    yield "looped_vit:LoopedViT", {"depth": None, **_LOOPS}, True
    yield "pit:PiT", {"depth": (2, 1, 1)}, False
    yield "look_vit:LookViT", {"highres_patch_size": 4, "patch_conv_kernel_size": 3, **_LOOK}, False


_LOOPS = {"pre_loop_depth": 1, "num_looped_blocks": 1, "post_loop_depth": 1, "loop_depth": 2}
_LOOK = {"mlp_dim": None, "mlp_factor": 2, "highres_mlp_factor": 2, "cross_attn_heads": 2}


def _others() -> Iterator[tuple[str, partial[nn.Module], Size]]:
    """Yield names, builders and sizes of models whose arguments are their own."""
    for size in ((64, 64), (64, 96)):
        for conv in (1, 2):
            arguments = {"img_size": size, "n_conv_layers": conv, "kernel_size": 3, "stride": 2}
            yield f"cct-{conv}", partial(_cct, {**arguments, "padding": 1}), size
    yield (
        "cct-learnable",
        partial(_cct, {"img_size": 64, "positional_embedding": "learnable"}),
        (64, 64),
    )
    for size in ((64, 64), (64, 128)):
        yield "cvt", partial(_made, "cvt:CvT", s3_depth=1), size
        yield "max_vit", partial(_max_vit, "max_vit"), size
        yield "max_vit_with_registers", partial(_max_vit, "max_vit_with_registers"), size
        yield "twins_svt", partial(_made, "twins_svt:TwinsSVT", **_twins()), size
        yield "scalable_vit", partial(_made, "scalable_vit:ScalableViT", **_SCALABLE), size
        yield "regionvit", partial(_made, "regionvit:RegionViT", **_REGIONS), size
        peg = {**_REGIONS, "use_peg": True, "tokenize_local_3_conv": True}
        yield "regionvit-peg", partial(_made, "regionvit:RegionViT", **peg), size
    yield "sep_vit", partial(_made, "sep_vit:SepViT", **_SEPARABLE), (224, 224)
    yield "levit", partial(_made, "levit:LeViT", image_size=64, **_LEVIT), (64, 64)
    distilled = {**_LEVIT, "stages": 2, "depth": (2, 2), "heads": (2, 2), "dim": (16, 24)}
    yield "levit-two-stages", partial(_made, "levit:LeViT", image_size=64, **distilled), (64, 64)
    yield "nest", partial(_made, "nest:NesT", **_NEST), _SQUARE
    for size in ((64, 64), (64, 128)):
        mobile = partial(_made, "mobile_vit:MobileViT", image_size=size, **_MOBILE)
        yield "mobile_vit", mobile, size
    yield "t2t", partial(_made, "t2t:T2TViT", image_size=64, **_T2T), (64, 64)
    for patches in ((12, 16), (8, 16)):
        settings = {**_CROSS, "sm_patch_size": patches[0], "lg_patch_size": patches[1]}
        build = partial(_made, "cross_vit:CrossViT", image_size=48, **settings)
        yield f"cross_vit-{patches[0]}-{patches[1]}", build, (48, 48)
    for size in (_SQUARE, _WIDE):
        yield "efficient", partial(_efficient, size), size
        yield "na_vit", partial(_packed, "na_vit", size), size
        yield "na_vit_nested_tensor", partial(_packed, "na_vit_nested_tensor", size), size
    slots = {**_PLAIN, "num_slots": (8, 4), "depth": 2}
    yield "wwt", partial(_made, "wwt:WWT", image_size=32, **slots), _SQUARE


_SCALABLE = {
    "dim": 16,
    "heads": (1, 2, 2, 2),
    "depth": (1, 1, 1, 1),
    "reduction_factor": (4, 2, 1, 1),
    "window_size": (4, 4, 2, 2),
}
_SEPARABLE = {"dim": 16, "depth": (1, 1, 2, 1), "heads": (1, 2, 2, 2)}
_REGIONS = {"dim": (16, 16, 32, 32), "depth": (1, 1, 1, 1), "window_size": 2}
_LEVIT = {"dim": (16, 24, 32), "depth": 2, "heads": (2, 2, 2), "mlp_mult": 2}
_NEST = {
    "image_size": 32,
    "patch_size": 4,
    "dim": 16,
    "heads": 2,
    "num_hierarchies": 2,
    "block_repeats": (2, 2),
}
_MOBILE = {"dims": (24, 32, 40), "channels": (8, 8, 16, 16, 24, 24, 32, 32, 40, 40, 64)}
_T2T = {"dim": 32, "depth": 2, "heads": 2, "mlp_dim": 48}
_CROSS = {
    "sm_dim": 16,
    "lg_dim": 24,
    "depth": 2,
    "sm_enc_mlp_dim": 32,
    "lg_enc_mlp_dim": 32,
    "lg_enc_depth": 2,
}


def _twins() -> dict[str, int]:
    found = {f"s{stage}_emb_dim": dim for stage, dim in enumerate((16, 16, 32, 32), 1)}
    found |= {f"s{stage}_local_patch_size": 2 for stage in range(1, 5)}
    found |= {f"s{stage}_global_k": 2 for stage in range(1, 5)} | {"s4_local_patch_size": 1}
    return found | {"s3_depth": 2, "s4_depth": 1, "s4_global_k": 1}


def _made(name: str, **arguments: Any) -> nn.Module:
    module, _, cls = name.partition(":")
    made: nn.Module = _class(module, cls)(**{"num_classes": _CLASSES, **arguments})
    return made


def _cct(arguments: dict[str, Any]) -> nn.Module:
    settings = {"embedding_dim": 32, "num_layers": 2, "num_heads": 2, "mlp_ratio": 2.0, **arguments}
    return _made("cct:CCT", **settings)


def _max_vit(module: str) -> nn.Module:
    sizes = {"dim_conv_stem": 16, "dim": 16, "dim_head": 8, "depth": (1, 1), "window_size": 4}
    return _made(f"{module}:MaxViT", **sizes)


def _efficient(size: Size) -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 2, 48, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    sizes = {"image_size": size, "patch_size": 8, "dim": 32, "transformer": encoder}
    return _made("efficient:ViT", **sizes)


def _packed(module: str, size: Size) -> nn.Module:
    return Listed(_made(f"{module}:NaViT", image_size=max(size), **_PLAIN))


_X_TRANSFORMERS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("plain", {}, {}),
    ("one-register", {"num_register_tokens": 1}, {}),
    ("registers", {"num_register_tokens": 4}, {}),
    ("nine-registers", {"num_register_tokens": 9}, {}),
    ("post-emb-norm", {"post_emb_norm": True}, {}),
    ("rmsnorm-swish-glu", {}, {"use_rmsnorm": True, "ff_glu": True, "ff_swish": True}),
    ("post-norm", {}, {"pre_norm": False}),
    ("sandwich", {}, {"sandwich_norm": True}),
    ("parallel", {}, {"shift_tokens": 1}),
    ("rotary", {"num_register_tokens": 2}, {"rotary_pos_emb": True}),
    ("macaron", {}, {"macaron": True}),
    ("memory", {}, {"attn_num_mem_kv": 4}),
    ("gated-residual", {}, {"gate_residual": True}),
)


def _x_transformer(wrapper: dict[str, Any], encoder: dict[str, Any]) -> nn.Module:
    from x_transformers import Encoder, ViTransformerWrapper

    layers = Encoder(dim=32, depth=2, heads=2, attn_dim_head=16, **encoder)
    torch.manual_seed(0)
    model: nn.Module = ViTransformerWrapper(
        image_size=32, patch_size=8, num_classes=_CLASSES, attn_layers=layers, **wrapper
    )
    return model
