"""The engine: gradients of a recorded graph under LibraGrad and other rule sets.

Knows torch alone. `grad` is the public call; `LIBRA` and `PLAIN` are the rule sets.
"""

from libragrad_lightning.backward.attention import AttentionSite, AttentionWatch
from libragrad_lightning.backward.biases import BiasKind, BiasSink, BiasSite
from libragrad_lightning.backward.constants import ConstantObserver
from libragrad_lightning.backward.errors import (
    LibraGradError,
    TrainingStatisticsError,
    UnknownOperationError,
    UnreachableInputError,
)
from libragrad_lightning.backward.gradient import UnknownPolicy, Watch, grad
from libragrad_lightning.backward.graph import GraphReading, NodeReading, read_graph
from libragrad_lightning.backward.operations import Operation, Role, Vocabulary
from libragrad_lightning.backward.rule_sets import (
    ALI_LRP,
    ATTN_LRP,
    DECOMPX,
    LIBRA,
    PLAIN,
    RULE_SETS,
    Correction,
    Flow,
    RuleSet,
    rule_set,
)
from libragrad_lightning.backward.vocabulary import VOCABULARY

__all__ = [
    "ALI_LRP",
    "ATTN_LRP",
    "DECOMPX",
    "LIBRA",
    "PLAIN",
    "RULE_SETS",
    "VOCABULARY",
    "AttentionSite",
    "AttentionWatch",
    "BiasKind",
    "BiasSink",
    "BiasSite",
    "ConstantObserver",
    "Correction",
    "Flow",
    "GraphReading",
    "LibraGradError",
    "NodeReading",
    "Operation",
    "Role",
    "RuleSet",
    "TrainingStatisticsError",
    "UnknownOperationError",
    "UnknownPolicy",
    "UnreachableInputError",
    "Vocabulary",
    "Watch",
    "grad",
    "read_graph",
    "rule_set",
]
