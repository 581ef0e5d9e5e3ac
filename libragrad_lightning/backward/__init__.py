"""The engine: gradients of a recorded graph under LibraGrad and other rule sets.

Knows torch alone. `grad` is the public call; `LIBRA` and `PLAIN` are the rule sets.
"""

from libragrad_lightning.backward.attention import AttentionSite, AttentionWatch
from libragrad_lightning.backward.biases import (
    BiasKind,
    BiasSink,
    BiasSite,
    bias_sites,
    watch_bias_sites,
)
from libragrad_lightning.backward.constants import ConstantObserver
from libragrad_lightning.backward.errors import (
    LibraGradError,
    TrainingStatisticsError,
    UnknownConstantError,
    UnknownOperationError,
    UnreachableInputError,
)
from libragrad_lightning.backward.gradient import UnknownPolicy, Watch, grad
from libragrad_lightning.backward.graph import (
    edge_of,
    nodes_inputs_first,
    read_graph,
)
from libragrad_lightning.backward.operations import (
    AttentionPart,
    Edge,
    Node,
    Operation,
    Role,
    Vocabulary,
)
from libragrad_lightning.backward.readings import GraphReading, NodeReading
from libragrad_lightning.backward.rule_sets import (
    ALI_LRP,
    ATTN_LRP,
    DECOMPX,
    LIBRA,
    PLAIN,
    RULE_SETS,
    RuleSet,
    rule_set,
)
from libragrad_lightning.backward.treatments import Correction, Flow, WeighAttention
from libragrad_lightning.backward.versions import check_torch_version
from libragrad_lightning.backward.vocabulary import VOCABULARY

check_torch_version()

__all__ = [
    "ALI_LRP",
    "ATTN_LRP",
    "DECOMPX",
    "LIBRA",
    "PLAIN",
    "RULE_SETS",
    "VOCABULARY",
    "AttentionPart",
    "AttentionSite",
    "AttentionWatch",
    "BiasKind",
    "BiasSink",
    "BiasSite",
    "ConstantObserver",
    "Correction",
    "Edge",
    "Flow",
    "GraphReading",
    "LibraGradError",
    "Node",
    "NodeReading",
    "Operation",
    "Role",
    "RuleSet",
    "TrainingStatisticsError",
    "UnknownConstantError",
    "UnknownOperationError",
    "UnknownPolicy",
    "UnreachableInputError",
    "Vocabulary",
    "Watch",
    "WeighAttention",
    "bias_sites",
    "edge_of",
    "grad",
    "nodes_inputs_first",
    "read_graph",
    "rule_set",
    "watch_bias_sites",
]
