"""Entries of one's own count as built-in ones: names of operations stand in the table alone."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from backward_cases import BiasRecord, leaves

import libragrad_lightning.backward
from libragrad_lightning.backward import (
    ATTN_LRP,
    LIBRA,
    PLAIN,
    VOCABULARY,
    Activation,
    ConstantObserver,
    Elementwise,
    ElementwiseProduct,
    Gate,
    Linear,
    MatrixProduct,
    Movement,
    UnknownOperationError,
    grad,
)
from libragrad_lightning.backward.attention_watch import AttentionWatch
from libragrad_lightning.backward.graph import Function


class OwnMatmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a @ b

    @staticmethod
    def backward(ctx, gradient):
        a, b = ctx.saved_tensors
        return gradient @ b.mT, a.mT @ gradient


class OwnSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores):
        weights = scores.softmax(-1)
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx, gradient):
        (weights,) = ctx.saved_tensors
        return weights * (gradient - (gradient * weights).sum(-1, keepdim=True))


class OwnExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.exp())
        return x.exp()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0]


class OwnProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx, gradient):
        a, b = ctx.saved_tensors
        return gradient * b, gradient * a


class OwnTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (1 - ctx.saved_tensors[0].tanh() ** 2)


class OwnRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rows):
        ctx.rows, ctx.length = rows, len(x)
        return x[rows]

    @staticmethod
    def backward(ctx, gradient):
        zeros = gradient.new_zeros(ctx.length, *gradient.shape[1:])
        return zeros.index_add(0, ctx.rows, gradient), None


@torch.library.custom_op("libragrad_tests::shift", mutates_args=())
def own_shift(x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    return x + by


own_shift.register_autograd(lambda ctx, gradient: (gradient, None))

OWN = VOCABULARY.extended(
    {
        "OwnMatmulBackward": MatrixProduct(
            batched=True, saved_factors=lambda node: node.saved_tensors
        ),
        "OwnSoftmaxBackward": Gate(
            value=lambda node: node.saved_tensors[0], function=Function.SOFTMAX
        ),
        "OwnExpBackward": Gate(value=lambda node: node.saved_tensors[0], function=Function.EXP),
        "OwnProductBackward": ElementwiseProduct(elementwise=Elementwise.PROPORTIONAL),
        "OwnTanhBackward": Activation(
            lambda node: node.saved_tensors[0].tanh() / node.saved_tensors[0]
        ),
        "OwnRowsBackward": Linear(movement=Movement.PICK),
        "GeneratedBackwardFor_libragrad_tests_shift_defaultBackward": Linear(hides_constants=True),
        "OwnDifferenceBackward": Linear(hides_constants=True, in_place=("subtract_",)),
        "OwnDivisionBackward": Linear(in_place=("div_",)),
        "OwnReluBackward": Activation(lambda node: None, in_place=("relu_",)),
    }
)


def explained(output, inputs, rules):
    """Return gradients, what biases add up to, and the attention that was shown."""
    record, shown = BiasRecord(), []
    watch = AttentionWatch(lambda site, weights, gradients: shown.append((weights, gradients)))
    rules = replace(rules, vocabulary=OWN)
    gradients = grad(output, inputs, rules=rules, on_bias=record, watch=[watch], retain_graph=True)
    return [*gradients, record.total()], shown


def own_exponential(scores):
    e = OwnExp.apply(scores)
    return e / e.sum(-1, keepdim=True)


@pytest.mark.parametrize("rules", [PLAIN, LIBRA, ATTN_LRP], ids=repr)
@pytest.mark.parametrize(
    "softmax",
    [OwnSoftmax.apply, own_exponential, lambda s: s.softmax(-1)],
    ids=["own", "own_exponential", "built_in"],
)
def test_attention_of_ones_own_products_and_softmax(rules, softmax):
    q, k, v = leaves(0, (2, 4, 6), (2, 5, 6), (2, 5, 6))

    def attention(matmul, softmax):
        return matmul(softmax(matmul(q, k.mT)), v).square().sum()

    found, shown = explained(attention(OwnMatmul.apply, softmax), [q, k, v], rules)
    built_in = attention(torch.matmul, lambda s: s.softmax(-1))
    expected, expected_shown = explained(built_in, [q, k, v], rules)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert len(shown) == len(expected_shown) == 1
    torch.testing.assert_close(shown, expected_shown, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("product", [OwnProduct.apply, torch.mul])
@pytest.mark.parametrize("tanh", [OwnTanh.apply, torch.tanh])
def test_eager_activations_of_ones_own_operations(product, tanh):
    (x,) = leaves(0, (3, 4))
    found, _ = explained(product(x, 1 + tanh(x)).square().sum(), [x], LIBRA)
    expected, _ = explained((x * (1 + x.tanh())).square().sum(), [x], LIBRA)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    gate = (1 + x.tanh()).detach()
    torch.testing.assert_close(found[0], (x * gate * gate).detach(), rtol=1e-12, atol=1e-14)


def test_what_ones_own_affine_operation_adds_is_a_bias():
    (x,) = leaves(0, (3, 4))
    by = torch.arange(4.0).double()
    with ConstantObserver():
        output = own_shift(x, by).square().sum()
    (gradient, biases), _ = explained(output, [x], LIBRA)
    torch.testing.assert_close((x * gradient).sum() + biases, output, rtol=1e-12, atol=0)
    torch.testing.assert_close(biases, (gradient * by).sum(), rtol=1e-12, atol=0)


def test_rows_that_ones_own_operation_picks_contribute_where_they_come_from():
    x, bias = leaves(0, (3, 4), (4,))
    rows = torch.tensor([2, 0, 0, 1, 2])
    for picked in (OwnRows.apply(x, rows), x[rows]):
        record = BiasRecord()
        output = (picked + bias).square().sum()
        grad(output, x, rules=replace(LIBRA, vocabulary=OWN), on_bias=record)
        assert [c.shape for c in record.contributions] == [(3, 4)]


WRITES = {
    "affine": lambda y: y.subtract_(torch.full((3, 2), 0.3).double()),
    "linear": lambda y: y.div_(4.0),
}


def in_place(x, write, vocabulary):
    y = 2 * x
    with ConstantObserver(vocabulary):
        write(y[:, 1:3])
    return y.square().sum()


@pytest.mark.parametrize("kind", WRITES)
def test_functions_that_do_ones_own_operation_in_place_on_a_view(kind):
    (x,) = leaves(0, (3, 4))
    output = in_place(x, WRITES[kind], OWN)
    (gradient, biases), _ = explained(output, [x], LIBRA)
    torch.testing.assert_close((x * gradient).sum() + biases, output, rtol=1e-12, atol=0)


def test_a_clamp_of_ones_own_in_place_on_a_view_is_refused_as_the_built_in_one_is():
    (x,) = leaves(0, (3, 4))
    for write, vocabulary in ((torch.relu_, OWN), (lambda y: y.clamp_(0, 1), VOCABULARY)):
        with pytest.raises(UnknownOperationError, match="CopySlices"):
            grad(in_place(x, write, vocabulary), x)
    grad(in_place(x, torch.relu_, VOCABULARY), x)


def strings(path):
    """The strings of a file that are no docstrings."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    alone = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    constants = (n for n in nodes if isinstance(n, ast.Constant) and id(n) not in alone)
    return {node.value for node in constants if isinstance(node.value, str)}


def test_names_of_operations_stand_in_the_table_alone():
    folder = Path(libragrad_lightning.backward.__file__).parent
    stems = {re.sub(r"Backward\d*$", "", name) for name in VOCABULARY}
    found = {
        (path.name, text)
        for path in folder.rglob("*.py")
        if path.name != "vocabulary.py"
        for text in strings(path)
        if "Backward" in text or text in stems
    }
    assert found == set()
