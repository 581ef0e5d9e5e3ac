"""The golden arrays: computed with the LibraGrad authors' own code (see tests/golden/README.md)."""

import functools
from pathlib import Path

import numpy as np

from libragrad_lightning.backward import ALI_LRP, ATTN_LRP, DECOMPX, LIBRA, PLAIN, Role

GOLDEN = Path(__file__).parents[1] / "golden"

RULES = {
    "ng": PLAIN,
    "libra": LIBRA,
    "attnlrp": ATTN_LRP,
    "alilrp": ALI_LRP,
    "decompx": DECOMPX,
    "wo_att": LIBRA.without(Role.ATTENTION),
    "wo_ln": LIBRA.without(Role.NORMALIZATION),
    "wo_act": LIBRA.without(Role.ACTIVATION),
    "wo_mlp": LIBRA.without(Role.PRODUCT),
    "mlp_gate": LIBRA.without(Role.ATTENTION, Role.NORMALIZATION),
}


@functools.cache
def arrays(arch: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{arch}.npz") as archive:
        return {key: archive[key] for key in archive}


def relative_difference(ours: np.ndarray, golden: np.ndarray) -> float:
    return float(np.abs(ours - golden).max() / np.abs(golden).max())
