"""One file for each role: what torch saves, the formula, the rules that fit it, and the theorem.

`vocabulary` is the one table of names, filled with operations of these roles. Eager activations and
eager attention, which consist of several nodes, are recognized by their place in the graph.
"""

from libragrad_lightning.backward.rules.activation import (
    Activation,
    EagerActivation,
    GatedUnit,
    identity_rule,
)
from libragrad_lightning.backward.rules.attention import (
    AttentionScores,
    AttentionSoftmax,
    FusedAttention,
    WeighAttention,
    WeightedSum,
    fused_value,
    fused_weights,
)
from libragrad_lightning.backward.rules.eager_activation import eager_activations
from libragrad_lightning.backward.rules.eager_attention import eager_attention
from libragrad_lightning.backward.rules.gate import Gate, Statistic, stop_statistic
from libragrad_lightning.backward.rules.hidden_write import note_linear
from libragrad_lightning.backward.rules.linear import Identity, Linear, Movement, note_threshold
from libragrad_lightning.backward.rules.normalization import (
    BatchNormalization,
    Normalization,
    stop_statistics,
)
from libragrad_lightning.backward.rules.power import Power, divide_by_degree
from libragrad_lightning.backward.rules.product import (
    ElementwiseProduct,
    MatrixProduct,
    Product,
    divide_gradient,
    hold_dead_factors,
)
from libragrad_lightning.backward.rules.quotient import Quotient, stop_denominator
from libragrad_lightning.backward.rules.rule import Rule, ordinary_gradient, stop_gradient
from libragrad_lightning.backward.rules.vocabulary import VOCABULARY
from libragrad_lightning.backward.rules.weighting import Weighting, stop_weights

__all__ = [
    "VOCABULARY",
    "Activation",
    "AttentionScores",
    "AttentionSoftmax",
    "BatchNormalization",
    "EagerActivation",
    "ElementwiseProduct",
    "FusedAttention",
    "Gate",
    "GatedUnit",
    "Identity",
    "Linear",
    "MatrixProduct",
    "Movement",
    "Normalization",
    "Power",
    "Product",
    "Quotient",
    "Rule",
    "Statistic",
    "WeighAttention",
    "WeightedSum",
    "Weighting",
    "divide_by_degree",
    "divide_gradient",
    "eager_activations",
    "eager_attention",
    "fused_value",
    "fused_weights",
    "hold_dead_factors",
    "identity_rule",
    "note_linear",
    "note_threshold",
    "ordinary_gradient",
    "stop_denominator",
    "stop_gradient",
    "stop_statistic",
    "stop_statistics",
    "stop_weights",
]
