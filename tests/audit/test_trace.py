"""What a step makes of what a module returned, computed again of what it returns for others."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from libragrad_lightning.audit import AuditError, parameter_owners, watched_step
from libragrad_lightning.audit.trace import Operation, Trace, continuation
from libragrad_lightning.audit.trees import tensors

IMAGES = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Root(nn.Module):
    """Features, and a head that is no module which is shown the images."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(48, 6))
        self.head = nn.Parameter(torch.randn(6, 5))
        self.scale = nn.Parameter(torch.tensor(2.0))


def watched(step):
    root = Root()
    with torch.no_grad(), watched_step(root, (IMAGES,)) as seen:
        scores = step(root)
    return root, seen, scores


def names(operations):
    return [operation.function.__name__ for operation in operations]


def going_on(step):
    """The module, and what goes on from its features to the scores of the step."""
    root, seen, scores = watched(step)
    operations = seen.trace.to(scores, seen.trace.length)
    (call,) = seen.calls
    return root, continuation(operations, call.returned, scores, parameter_owners(root))


def in_order(root):
    return F.relu(root.features(IMAGES)).sub(1.0) @ root.head


def in_place(root):
    x = root.features(IMAGES)
    x.add_(1.0)
    x[:, 0] = 3.0
    return x @ root.head


def through_a_view(root):
    x = root.features(IMAGES) * 1.0
    x[:, :2].mul_(0.0)
    return x @ root.head


def with_lists_and_keywords(root):
    x = root.features(IMAGES)
    return torch.cat(tensors=[x, x * 2.0], dim=1)[:, 3:9] / root.scale


def into_a_buffer(root):
    x, buffer = root.features(IMAGES), torch.empty(3, 5)
    return torch.matmul(x, root.head, out=buffer)


STEPS = [in_order, in_place, through_a_view, with_lists_and_keywords, into_a_buffer]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_what_a_step_makes_of_features_is_made_of_others(step):
    root, goes_on = going_on(step)
    with torch.no_grad():
        expected = step(root)
        assert torch.equal(goes_on(root.features(IMAGES)), expected)
        other = root.features(IMAGES.flip(0))
        torch.testing.assert_close(goes_on(other), expected.flip(0))


def test_parameters_that_stand_in_are_used():
    root, goes_on = going_on(in_order)
    root.head = nn.Parameter(torch.zeros(6, 5))
    assert not goes_on(root.features(IMAGES)).any()


def test_constants_of_half_precision_go_with_the_output_and_others_stay():
    half, whole = torch.full((6,), 0.5, dtype=torch.float16), torch.tensor([0, 2])
    _, goes_on = going_on(lambda root: (root.features(IMAGES) * half).index_select(1, whole))
    for dtype in (torch.float64, torch.bfloat16):
        output = torch.randn(3, 6, dtype=dtype)
        assert torch.equal(goes_on(output), output[:, [0, 2]] * 0.5)


def test_a_constant_is_kept_as_it_was():
    shift = torch.ones(6)

    def step(root):
        return root.features(IMAGES) + shift

    _, goes_on = going_on(step)
    shift.zero_()
    assert torch.equal(goes_on(torch.zeros(3, 6)), torch.ones(3, 6))


def test_only_what_leads_to_the_scores_is_computed():
    def step(root):
        x = root.features(IMAGES)
        x.exp()
        torch.zeros(3).add_(1.0)
        scores = x.sub(1.0).mul(2.0)
        x.abs()
        return scores

    _, seen, scores = watched(step)
    assert names(seen.trace.to(scores, seen.trace.length)) == ["sub", "mul"]
    assert seen.trace.length == 4  # nothing comes to `add_` of what is followed


def test_memory_of_others_that_is_overwritten_does_not_count():
    def step(root):
        x = root.features(IMAGES)
        beside = x * 3.0
        scores = x.sub(1.0)
        beside.mul_(2.0)
        return scores

    _, seen, scores = watched(step)
    assert names(seen.trace.to(scores, seen.trace.length)) == ["sub"]


def test_what_is_computed_after_a_use_does_not_count():
    def step(root):
        scores = root.features(IMAGES).sub(1.0)
        F.cross_entropy(scores, torch.tensor([0, 1, 2]))
        scores.mul_(2.0)
        return scores

    _, seen, scores = watched(step)
    (use,) = seen.uses
    assert use.position == 1
    assert names(seen.trace.to(scores, use.position)) == ["sub"]
    assert names(seen.trace.to(scores, seen.trace.length)) == ["sub", "mul_"]


def test_what_is_made_of_parameters_alone_leads_to_no_images():
    def step(root):
        root.features(IMAGES)
        return root.head.exp()

    _, seen, scores = watched(step)
    assert seen.trace.length == 1
    assert seen.trace.to(scores, 1) == []


@pytest.mark.parametrize(("count", "is_network"), [(99, False), (100, True)])
def test_a_long_way_is_a_network_of_its_own(count, is_network):
    def step(root):
        x = root.features(IMAGES)
        for _ in range(count):
            x = x * 1.01
        return x + 1.0

    _, seen, scores = watched(step)
    if not is_network:
        assert len(seen.trace.to(scores, seen.trace.length)) == 100
        return
    with pytest.raises(AuditError, match="runs a network that is no module which is shown"):
        seen.trace.to(scores, seen.trace.length)


def test_what_is_made_of_parameters_may_be_long():
    def step(root):
        head = root.head
        for _ in range(150):
            head = head * 1.01
        return root.features(IMAGES) @ head

    root, seen, scores = watched(step)
    operations = seen.trace.to(scores, seen.trace.length)
    assert names(operations) == ["matmul"]
    (call,) = seen.calls
    goes_on = continuation(operations, call.returned, scores, parameter_owners(root))
    assert torch.equal(goes_on(root.features(IMAGES)), scores)


@pytest.mark.parametrize(
    ("call", "is_overwritten"),
    [
        ((torch.Tensor.__setitem__, (0, 1.0)), True),
        ((torch.Tensor.add_, (1.0,)), True),
        ((torch.Tensor.add, (1.0,)), False),
        ((torch.Tensor.__add__, (1.0,)), False),
    ],
)
def test_what_is_overwritten(call, is_overwritten):
    function, args = call
    tensor = torch.zeros(3)
    operation = Operation(function, (tensor, *args), {}, None)
    assert [t is tensor for t in operation.overwritten] == [True] * is_overwritten


def test_what_is_given_stands_in_arguments_and_keywords():
    first, second = torch.zeros(1), torch.zeros(2)
    operation = Operation(torch.cat, ([first],), {"out": second}, None)
    assert [len(t) for t in operation.given] == [1, 2]


def test_a_list_that_a_step_goes_on_to_fill_is_remembered_as_it_was():
    trace, x = Trace(), torch.zeros(2)
    trace.begin_at({"x": x})
    given = [x]
    trace.note(torch.cat, (given,), {}, torch.zeros(2))
    given.append(torch.ones(2))
    (operation,) = trace.to(trace._operations[0].result, trace.length)
    assert len(tensors(list(operation.args))) == 1


def test_which_functions_go_on_from_a_tensor():
    def step(root):
        x = root.features(IMAGES)
        F.normalize(x.sub(1.0))
        return x

    _, seen, x = watched(step)
    assert seen.trace.goes_on_from(x, {"sub"})
    assert not seen.trace.goes_on_from(x, {"normalize"})
    assert not seen.trace.goes_on_from(x.clone(), {"sub"})


def test_owners_of_parameters():
    root = Root()
    root.register_parameter("none", None)
    owners = parameter_owners(root)
    assert owners[id(root.head)] == (root, "head")
    assert owners[id(root.features[1].bias)] == (root.features[1], "bias")
    assert len(owners) == len(list(root.parameters())) == 4
