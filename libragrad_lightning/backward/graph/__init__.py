"""The recorded graph: its nodes, their order and dependence, and what is noted of them.

Knows no rule. What nodes compute (`Operation`) and what is done to their gradients (`Correction`)
are facts that others fill in.
"""

from libragrad_lightning.backward.graph.annotation import (
    AnnotatedGraph,
    AnnotatedNode,
    annotate_graph,
    unknown_sentence,
)
from libragrad_lightning.backward.graph.edges import (
    Edge,
    Node,
    edge_of,
    is_leaf_node,
    nodes_inputs_first,
    shape_of,
    wrapped_axis,
)
from libragrad_lightning.backward.graph.flow import Correction, Flow, Gradients, handed_on
from libragrad_lightning.backward.graph.operations import (
    ConstantOf,
    Elementwise,
    Function,
    Operation,
    Role,
    Vocabulary,
)
from libragrad_lightning.backward.graph.recorded import RecordedGraph
from libragrad_lightning.backward.graph.versions import check_torch_version

__all__ = [
    "AnnotatedGraph",
    "AnnotatedNode",
    "ConstantOf",
    "Correction",
    "Edge",
    "Elementwise",
    "Flow",
    "Function",
    "Gradients",
    "Node",
    "Operation",
    "RecordedGraph",
    "Role",
    "Vocabulary",
    "annotate_graph",
    "check_torch_version",
    "edge_of",
    "handed_on",
    "is_leaf_node",
    "nodes_inputs_first",
    "shape_of",
    "unknown_sentence",
    "wrapped_axis",
]
