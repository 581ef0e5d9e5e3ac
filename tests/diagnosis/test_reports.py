"""What coverage and leak reports say, and how they show it."""

import pytest
import timm
import torch
from rich.console import Console
from torch import nn
from unknown_operation import CustomActivation

from libragrad_lightning.backward import LIBRA, PLAIN, Role
from libragrad_lightning.diagnosis import coverage, explain_incompleteness
from libragrad_lightning.diagnosis.coverage import CoverageReport, LevelUse, OperationUse
from libragrad_lightning.diagnosis.leaks import IncompletenessReport, Leak
from libragrad_lightning.diagnosis.tracing import traced_calls
from libragrad_lightning.models import read_token_model

USES = (
    OperationUse("SwishBackward", None, 2, 0, ("act",)),
    OperationUse("OddBackward", None, 0, 1, ("odd",)),
    OperationUse("GeluBackward0", "activation", 3, 1, ("a", "b", "... 3 in all")),
)
LEVELS = (
    LevelUse("blocks.0", 1, "by hand", "[B, T, D]", (4, 6), 1, "pixels"),
    LevelUse("blocks.1", 2, "by hand", "[B, T, D]", (2, 3), 0, "graph"),
)
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def cells(table):
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    return [column.justify for column in table.columns], list(zip(*columns, strict=True))


def test_a_coverage_report_as_markdown():
    report = CoverageReport("libra", USES, LEVELS, 3)
    assert report.unknown == USES[:1]
    assert report.markdown().splitlines() == [
        "| operation | role | count | stopped | where |",
        "| --- | --- | --- | --- | --- |",
        "| SwishBackward | **unknown** | 2 | 0 | act |",
        "| OddBackward | **unknown** | 0 | 1 | odd |",
        "| GeluBackward0 | activation | 3 | 1 | a, b, ... 3 in all |",
        "",
        "- give SwishBackward a role: rules.vocabulary.extended("
        "{'SwishBackward': operation}), such as Linear() or Activation(gate)",
        "",
        "| level | enters | found as | axes | grid | elsewhere | located by |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| 0 | blocks.0 | by hand | [B, T, D] | 4 x 6 | 1 | pixels |",
        "| 1 | blocks.1 (2 passes) | by hand | [B, T, D] | 2 x 3 | 0 | graph |",
        "",
        "3 blocks work on tokens that lie nowhere.",
    ]
    assert CoverageReport("libra", USES[2:]).markdown().count("\n") == 2
    assert CoverageReport("libra", (), LEVELS).markdown().endswith("| graph |")
    assert [use.advice for use in USES[1:]] == ["", ""]


def test_a_coverage_report_as_a_table():
    table = CoverageReport("libra", USES).table()
    assert table.title == "Coverage under libra"
    assert cells(table) == (
        ["left", "left", "right", "right", "left"],
        [
            ("operation", "role", "count", "stopped", "where"),
            ("SwishBackward", "[bold red]unknown[/]", "2", "0", "act"),
            ("OddBackward", "unknown (stopped)", "0", "1", "odd"),
            ("GeluBackward0", "activation", "3", "1", "a, b, ... 3 in all"),
        ],
    )
    Console(quiet=True).print(table)


def test_a_leak_report_as_a_table():
    leaks = tuple(Leak(f"m{i}", "Kind", 2.0, 1.0 / (i + 1), ("x", "y")) for i in range(12))
    report = IncompletenessReport("plain", -4.0, -3.0, leaks)
    assert report.relative_error == 0.25
    table = report.table()
    assert table.title == (
        "Completeness under plain: FullGrad sum -3, logit -4, relative error 2.5e-01"
    )
    justified, lines = cells(table)
    assert justified == ["left", "left", "right", "left"]
    assert lines[:3] == [
        ("module", "class", "own leak", "suspects"),
        ("m0", "Kind", "1", "x, y"),
        ("m1", "Kind", "0.5", "x, y"),
    ]
    assert (len(lines), len(cells(report.table(3))[1])) == (11, 4)


def vit():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **SMALL).eval().double()
    for p in model.parameters():
        p.data.normal_(0, 0.3)
    return model


IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()


def test_levels_of_a_model_whose_tokens_are_known():
    model = vit()
    report = coverage(model, IMAGES, tokens=read_token_model(model, IMAGES))
    first, second = report.levels
    assert (first.place, second.place) == ("pos_drop", "blocks.1")
    assert first == LevelUse(
        "pos_drop",
        1,
        "input of a module around a residual connection",
        "[B, T, D]",
        (4, 4),
        1,
        "the pixels that move its tokens",
    )
    assert second.located == "the graph, from the level before"
    assert report.left_out == 0
    operations = {use.operation for use in report.uses}
    assert "ConvolutionBackward0" not in operations  # it lies before the tokens
    assert coverage(model, IMAGES).levels == ()


class Ensemble(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = vit(), vit()

    def forward(self, images):
        return self.first(images) + self.second(images)


def test_levels_of_an_ensemble_are_named_by_its_first_model():
    model = Ensemble()
    report = coverage(model, IMAGES, tokens=read_token_model(model, IMAGES))
    assert [level.passes for level in report.levels] == [2, 2]
    assert [level.place for level in report.levels] == ["first.blocks.0", "first.blocks.1"]


def test_places_are_named_up_to_a_number():
    uses = {
        places: {use.operation: use for use in coverage(vit(), IMAGES, places=places).uses}
        for places in (1, 2, 3)
    }
    norms = ["blocks.0.norm1", "blocks.0.norm2", "blocks.1.norm1", "blocks.1.norm2", "norm"]
    for places, by_name in uses.items():
        shown = by_name["NativeLayerNormBackward0"].places
        assert (len(shown), shown[-1]) == (places + 1, "... 5 in all")
        assert set(shown[:-1]) <= set(norms)
    assert uses[2]["GeluBackward0"].places == ("blocks.0.mlp.act", "blocks.1.mlp.act")


class Gated(nn.Module):
    """A gate that is stopped, and an operation behind it that nothing needs to know."""

    def __init__(self):
        super().__init__()
        self.linear, self.odd = nn.Linear(12, 4), CustomActivation()

    def forward(self, images):
        x = self.linear(images.flatten(1))
        return x * self.odd(x).sigmoid() + (x * 2).tanh()


def test_what_lies_behind_stopped_paths_needs_no_role():
    report = coverage(Gated(), torch.randn(1, 3, 2, 2))
    uses = {use.operation: use for use in report.uses}
    assert (uses["SwishBackward"].count, uses["SwishBackward"].stopped) == (0, 1)
    assert report.unknown == ()
    assert uses["SwishBackward"].places == ("odd",)
    assert uses["SigmoidBackward0"].places == ("(model)",)
    assert [use.role is None for use in report.uses][:2] == [True, False]
    known = [(use.role, use.operation) for use in report.uses if use.role is not None]
    assert known == sorted(known)
    plain = {
        use.operation: use for use in coverage(Gated(), torch.randn(1, 3, 2, 2), rules=PLAIN).uses
    }
    assert plain["SwishBackward"].count == 1


class Added(nn.Module):
    """Adds what comes after an exponential, and a parameter right behind a part."""

    def __init__(self):
        super().__init__()
        self.part, self.bias = nn.Linear(12, 4), nn.Parameter(torch.full((4,), 2.0))

    def forward(self, images):
        x = self.part(images.flatten(1)) + self.bias
        return x + x.exp().abs()


def test_what_comes_after_a_stopped_operation_does_not_count_as_live():
    report = coverage(Added(), torch.randn(1, 3, 2, 2))
    uses = {use.operation: use for use in report.uses}
    assert (uses["AbsBackward0"].count, uses["AbsBackward0"].stopped) == (0, 1)
    assert report.left_out == 0


def test_a_bias_that_is_added_behind_a_part_is_none_of_it():
    report = explain_incompleteness(Added().double(), torch.randn(1, 3, 2, 2).double())
    leaks = {leak.path: leak.leaked for leak in report.leaks}
    assert leaks["part"] == pytest.approx(0, abs=1e-12)


def test_what_is_behind_a_gate_is_no_suspect():
    report = explain_incompleteness(Gated().double(), torch.randn(1, 3, 2, 2).double())
    assert all("SwishBackward" not in name for leak in report.leaks for name in leak.suspects)


def test_operations_outside_of_all_modules_are_said_to_be_there():
    model = Gated()
    report = coverage(model, torch.randn(1, 3, 2, 2), forward=lambda x: model(x.exp()) * 2)
    places = {use.operation: use.places for use in report.uses}
    assert places["ExpBackward0"] == ("(outside)",)
    assert places["MulBackward0"] == ("(model)", "(outside)")


class Twice(nn.Module):
    """Calls a part twice, with one input, by keyword and in a tuple."""

    def __init__(self):
        super().__init__()
        self.part, self.scale = nn.Linear(3, 3), nn.Parameter(torch.ones(3))

    def forward(self, pair, *, by_name):
        first, second = pair
        return {"sum": self.part(first) + self.part(second) * self.scale, "text": by_name}


@pytest.mark.parametrize("isolate", [True, False])
def test_calls_are_recorded_with_what_went_in_and_came_out(isolate):
    model, x = Twice(), torch.randn(2, 3, requires_grad=True)
    with traced_calls(model, isolate=isolate) as roots:
        output = model((x, x), by_name=torch.ones(1))["sum"]
    (root,) = roots
    assert [(call.path, call.kind) for call in root.all_calls()] == [
        ("", "Twice"),
        ("part", "Linear"),
        ("part", "Linear"),
    ]
    first, second = root.children
    assert root.start <= first.start < first.end <= second.start < second.end <= root.end
    assert root.innermost(second.start) is second
    assert root.innermost(second.end) is root
    assert root.innermost(first.end - 1) is first
    assert [len(call.inputs) for call in root.all_calls()] == [2 * isolate, isolate, isolate]
    assert root.outputs[0] is output
    (gradient,) = torch.autograd.grad(output.sum(), x, retain_graph=True)
    if isolate:
        parts = torch.autograd.grad(output.sum(), root.inputs)
        torch.testing.assert_close(parts[0] + parts[1], gradient)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_parameters_that_are_passed_to_a_part_stay_the_same_objects():
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.part, self.query = nn.Linear(3, 3), nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x + self.part(self.query)

    model = Asks()
    seen = []
    model.part.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with traced_calls(model, isolate=True) as roots:
        model(torch.randn(2, 3, requires_grad=True))
    assert seen[0] is model.query
    assert roots[0].children[0].inputs == []


def test_a_leak_counts_where_it_arises_and_through_all_that_calls_it():
    model = vit()
    model.blocks[1].mlp.act = CustomActivation()
    report = explain_incompleteness(model, IMAGES, 2)
    leaks = {leak.path: leak for leak in report.leaks}
    own = leaks["blocks.1.mlp.act"].own
    assert report.leaks[0].path == "blocks.1.mlp.act"
    for path in ("blocks.1.mlp.act", "blocks.1.mlp", "blocks.1", "blocks", "(model)"):
        assert leaks[path].leaked == pytest.approx(own, rel=1e-9)
    assert abs(leaks["blocks.0"].leaked) < 1e-9 * abs(own)
    assert report.logit == pytest.approx(float(model(IMAGES)[:, 2].sum().detach()))
    assert all(not leak.suspects for path, leak in leaks.items() if path != "blocks.1.mlp.act")
    first = explain_incompleteness(model, IMAGES, 0)
    assert first.logit == pytest.approx(float(model(IMAGES)[:, 0].sum().detach()))
    sizes = [abs(leak.own) for leak in report.leaks]
    assert sizes == sorted(sizes, reverse=True)
    assert leaks["(model)"].kind == "VisionTransformer"


def test_without_a_target_the_largest_logits_are_explained():
    model = vit()
    expected = float(model(IMAGES).max(dim=1).values.sum().detach())
    assert explain_incompleteness(model, IMAGES).logit == pytest.approx(expected)
    doubled = explain_incompleteness(model, IMAGES, forward=lambda x: 2 * model(x))
    assert doubled.logit == pytest.approx(2 * expected)


def test_suspects_are_counted_and_say_why():
    class Lossy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(12, 4)

        def forward(self, images):
            x = self.linear(images.flatten(1))
            return x + x.exp().mean() + x.exp()

    report = explain_incompleteness(Lossy().double(), torch.randn(1, 3, 2, 2).double())
    suspects = {leak.path: leak.suspects for leak in report.leaks}
    assert f"ExpBackward0 (stopped: {Role.GATE.value}) x2" in suspects["(model)"]
    assert suspects["linear"] == ()
    assert LIBRA.name == report.rules
