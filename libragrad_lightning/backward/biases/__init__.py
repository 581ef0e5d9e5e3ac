"""The biases of a graph: where constants add to the output, and what each contributes.

`sites` finds the places, `contributions` measures, `values` computes what was recorded, `observer`
remembers what was not, `writes` what in-place operations on views add, and `routing` carries what
belongs to picked rows back to where they were picked from.
"""

from libragrad_lightning.backward.biases.contributions import watch_biases
from libragrad_lightning.backward.biases.observer import ConstantObserver
from libragrad_lightning.backward.biases.sites import (
    BiasKind,
    BiasSink,
    BiasSite,
    bias_sites,
    watch_bias_sites,
)

__all__ = [
    "BiasKind",
    "BiasSink",
    "BiasSite",
    "ConstantObserver",
    "bias_sites",
    "watch_bias_sites",
    "watch_biases",
]
