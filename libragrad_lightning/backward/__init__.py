"""The engine: gradients of a recorded graph under LibraGrad and other rule sets.

Knows torch alone. `graph` is what autograd recorded, `rules` what is done at each role, `biases`
what constants contribute; `rule_sets` puts rules together, and `grad` applies them.

The words of the engine, each with its one meaning:

node, edge
    those of autograd's graph; an edge leads from a node to an operand of it
operation
    what a node computes, as far as the theory needs to know: facts, no gradients
role
    the part that operations of a kind play in the theory, such as product or gate
vocabulary
    the table from names of nodes to operations
rule
    what is done to the gradients at operations of one role
rule set
    a table from roles to rules, with a vocabulary
correction
    what a rule decided for one node: weights of its edges, perhaps a rewrite
annotated graph
    the graph with the operation, flows and correction of every node
explained tensor
    an input of `grad`; `depends_on` holds the numbers of those behind a value
flow
    whether a value is live, dead (gradients stop on all paths) or constant
factor
    an operand that an operation multiplies by others
gate
    a factor g(x) of x in an activation; of itself, a bounded function held constant
eager
    computed by several nodes, where a fused kernel would be one
scores, weights, values
    of attention A v: the scores q k', A = softmax of them, and v
weighted sum
    the product of weights and values in eager attention
constant
    a value that does not depend on the explained tensors
bias
    a constant that adds to a value that does
addition
    what an operation itself adds to its output (`additive`)
contribution
    dF/dy b of a bias b at the output y that it adds to
site
    a place in the graph where biases, or attention, are reported
held value
    the value of an operation that a rule holds constant
note
    what a `ConstantObserver` leaves with a node that autograd keeps nothing of
write
    an operation in place on a view, which autograd hides
route
    the way on which rows that were picked by what they hold go through a graph

What is exported here is public and stable; what the rooms above need beside it is in `graph`,
`biases`, `attention_watch` and `gradient`.
"""

from libragrad_lightning.backward.biases import ConstantObserver
from libragrad_lightning.backward.errors import (
    LibraGradError,
    TrainingStatisticsError,
    UnknownConstantError,
    UnknownOperationError,
    UnreachableInputError,
)
from libragrad_lightning.backward.gradient import UnknownPolicy, grad
from libragrad_lightning.backward.graph import (
    Correction,
    Elementwise,
    Flow,
    Node,
    Operation,
    Role,
    Vocabulary,
    check_torch_version,
)
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
from libragrad_lightning.backward.rules import (
    VOCABULARY,
    Activation,
    BatchNormalization,
    ElementwiseProduct,
    FusedAttention,
    Gate,
    GatedUnit,
    Identity,
    Linear,
    MatrixProduct,
    Movement,
    Normalization,
    Power,
    Product,
    Quotient,
    Rule,
    Statistic,
    WeighAttention,
    Weighting,
    divide_by_degree,
    divide_gradient,
    identity_rule,
    ordinary_gradient,
    stop_denominator,
    stop_gradient,
    stop_statistic,
    stop_statistics,
    stop_weights,
)

check_torch_version()

__all__ = [  # noqa: RUF022
    # Gradients and rule sets,
    "ALI_LRP",
    "ATTN_LRP",
    "DECOMPX",
    "LIBRA",
    "PLAIN",
    "RULE_SETS",
    "ConstantObserver",
    "RuleSet",
    "UnknownPolicy",
    "grad",
    "rule_set",
    # rules and what they work on,
    "Correction",
    "Flow",
    "Node",
    "Rule",
    "WeighAttention",
    "divide_by_degree",
    "divide_gradient",
    "identity_rule",
    "ordinary_gradient",
    "stop_denominator",
    "stop_gradient",
    "stop_statistic",
    "stop_statistics",
    "stop_weights",
    # vocabularies and operations,
    "VOCABULARY",
    "Activation",
    "BatchNormalization",
    "ElementwiseProduct",
    "Elementwise",
    "FusedAttention",
    "Gate",
    "GatedUnit",
    "Identity",
    "Linear",
    "MatrixProduct",
    "Movement",
    "Normalization",
    "Operation",
    "Power",
    "Product",
    "Quotient",
    "Role",
    "Statistic",
    "Vocabulary",
    "Weighting",
    # and errors.
    "LibraGradError",
    "TrainingStatisticsError",
    "UnknownConstantError",
    "UnknownOperationError",
    "UnreachableInputError",
]
