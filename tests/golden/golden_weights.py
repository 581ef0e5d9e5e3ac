"""Deterministic weights and inputs of the golden arrays.

Self-contained: numpy + torch only.  Written fresh for the golden set; contains no code of the
LibraGrad authors.  All values are float32-representable (drawn in float64, rounded to float32), so
a float32 and a float64 copy of a model hold exactly the same numbers.

Names are those of STOCK timm (1.0.x) `model.state_dict()`.
"""

import zlib

import numpy as np
import torch

NUM_CLASSES = 10
TARGETS = (3, 7)  # image 0 -> class 3, image 1 -> class 7
INPUT_SEED = 0

# key of the golden file -> (timm model name, create_model kwargs, square image size, blocks kept)
# blocks kept: None = all; k = `model.blocks = model.blocks[:k]` after create_model (the mixers take
# no depth argument through create_model).
ARCHS = {
    "vit_tiny": ("vit_tiny_patch16_224", {"depth": 4}, 224, None),
    "vit_tiny_d12": ("vit_tiny_patch16_224", {}, 224, None),
    "deit3_small": ("deit3_small_patch16_224", {"depth": 4}, 224, None),
    "dinov2_reg4": ("vit_small_patch14_reg4_dinov2", {"depth": 4, "img_size": 112}, 112, None),
    "eva02_tiny": ("eva02_tiny_patch14_224", {"depth": 4}, 224, None),
    "eva02_base": ("eva02_base_patch14_224", {"depth": 3}, 224, None),
    "beitv2_base": ("beitv2_base_patch16_224", {"depth": 4}, 224, None),
    "flexivit_small": ("flexivit_small", {"depth": 4}, 240, None),
    "siglip_map": ("vit_base_patch16_siglip_224", {"depth": 4}, 224, None),
    "siglip_gap": ("vit_base_patch16_siglip_gap_224", {"depth": 4}, 224, None),
    "clip_base": ("vit_base_patch16_clip_224", {"depth": 4}, 224, None),
    "mixer_s32": ("mixer_s32_224", {}, 224, 4),
    "gmixer_24": ("gmixer_24_224", {}, 224, 4),
}

# leaf names that are embeddings / learned queries / tables: 0.3 * N(0,1)
_EMBED = ("pos_embed", "cls_token", "reg_token", "latent", "relative_position_bias_table")


def param_array(name, shape):
    """float32 numpy array for the state_dict entry `name` of shape `shape`."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    shape = tuple(int(s) for s in shape)
    n = rng.standard_normal(shape)  # float64, C order
    leaf = name.rsplit(".", 1)[-1]
    if leaf in _EMBED:
        v = 0.3 * n
    elif len(shape) >= 2:  # Linear / Conv weights
        fan_in = int(np.prod(shape)) // shape[0]
        v = n * (0.7 / np.sqrt(fan_in))
    elif name.endswith("weight") or "gamma" in leaf:  # LayerNorm weight, LayerScale
        v = 1.0 + 0.1 * n
    else:  # biases (incl. q_bias, v_bias)
        v = 0.1 * n
    return v.astype(np.float32)


def skip(name, tensor):
    """Integer / index buffers and rotary tables stay as constructed."""
    return (not torch.is_floating_point(tensor)) or "rope" in name


def state_dict_for(model):
    """Deterministic float32 state dict with the names of model.state_dict()."""
    out = {}
    for name, t in model.state_dict().items():
        if skip(name, t):
            out[name] = t.detach().clone()
        else:
            out[name] = torch.from_numpy(param_array(name, t.shape))
    return out


def load_weights(model):
    """Fill a stock timm model in place (any float dtype)."""
    model.load_state_dict(state_dict_for(model), strict=True)
    return model.eval()


def make_input(arch, dtype=torch.float64):
    """[2, 3, S, S]; numpy Generator(0), N(0,1), rounded to float32 first."""
    s = ARCHS[arch][2]
    x = np.random.default_rng(INPUT_SEED).standard_normal((2, 3, s, s)).astype(np.float32)
    return torch.from_numpy(x).to(dtype)


def create(arch):
    """Untrained float32 timm model of the golden set (whichever timm is importable)."""
    import timm

    name, kw, _, keep = ARCHS[arch]
    model = timm.create_model(name, pretrained=False, num_classes=NUM_CLASSES, **kw)
    if keep is not None:
        model.blocks = model.blocks[:keep]
    return model


def build_stock(arch, dtype=torch.float64):
    """Stock timm model with the golden weights (imports timm).

    The model is constructed under float32 and then converted, so that rotary tables are the
    float32 ones timm builds, up-cast."""
    return load_weights(create(arch)).to(dtype)
