"""What a model refuses is an answer about it; that memory has run out is none."""

import pytest
import timm
import torch
from torch import nn

from libragrad_lightning.models import (
    UnreadableModelError,
    explanation_state,
    read_token_model,
    reading,
)
from libragrad_lightning.models.refusals import is_out_of_memory, unless_refused
from libragrad_lightning.perturbation import deletion_logits

torch.set_num_threads(1)
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def raised_from(error, cause):
    error.__cause__ = cause
    return error


NO_MEMORY = {
    "torch": lambda: torch.OutOfMemoryError("planted"),
    "cuda": lambda: RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
    "cuda driver": lambda: RuntimeError("CUDA driver error: Out Of Memory"),
    "mps": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB, ...)"),
    "cpu": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 9000000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "cpu, windows": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried ..."),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ..."),
    "cudnn": lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "wrapped": lambda: raised_from(ValueError("block 1"), torch.OutOfMemoryError("planted")),
}
REFUSALS = {
    "runtime": lambda: RuntimeError("The size of tensor a (16) must match the size of tensor b"),
    "value": lambda: ValueError("out of memory banks"),  # no allocator raises this
    "assertion": lambda: AssertionError("Input size doesn't match model"),
    "index": lambda: IndexError("index 16 is out of bounds"),
    "not implemented": lambda: NotImplementedError("fewer tokens"),
}
no_memory = pytest.mark.parametrize("error", NO_MEMORY.values(), ids=NO_MEMORY.keys())
refusals = pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS.keys())


class Failing(nn.Module):
    """Fails at inputs of a kind, as long as it has an error."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.error = kind, None

    def forward(self, x):
        if self.error is not None and self.kind(x):
            raise self.error
        return x


def failing(kind):
    """Return a ViT of 16 patches and a class token, and the module in its first block that fails.

    It fails at tensors `[B, T, D]` of a kind.
    """
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **SMALL).eval()
    model.blocks[0].drop_path1 = part = Failing(kind)
    return model, part


def fewer(x):
    return x.shape[1] < 17


@no_memory
def test_running_out_of_memory_is_no_answer_to_whether_tokens_can_be_left_out(error):
    model, part = failing(fewer)
    read = read_token_model(model, IMAGES)
    part.error = raised = error()
    scores = {"a": torch.randn(2, 16)}
    for _ in range(2):
        with pytest.raises(type(raised)) as caught:
            deletion_logits(read, IMAGES, scores)
        assert caught.value is raised
    part.error = None  # memory is free again: the answer is that of a fresh look
    found = deletion_logits(read, IMAGES, scores)["a"]
    assert found.perturbation == "drop_tokens"
    fresh = deletion_logits(read_token_model(model, IMAGES), IMAGES, scores)["a"]
    assert torch.equal(found.most_influential_first, fresh.most_influential_first)


@refusals
def test_a_refusal_is_an_answer_and_is_remembered(error):
    model, part = failing(fewer)
    read = read_token_model(model, IMAGES)
    part.error = error()
    scores = {"a": torch.randn(2, 16)}
    assert deletion_logits(read, IMAGES, scores)["a"].perturbation == "zero_tokens"
    part.error = None
    assert not read.can_drop_tokens(IMAGES)


def tied_to_its_batch():
    """Return a ViT, and the module behind z0 that refuses two images' tokens of one image."""
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **SMALL).eval()
    watch = Failing(lambda x: len(x) != watch.images)
    model.register_forward_pre_hook(lambda _, args: setattr(watch, "images", len(args[0])))
    model.blocks[0].drop_path1 = watch
    return model, watch


@no_memory
def test_running_out_of_memory_is_no_answer_to_whether_images_share_a_stem(error):
    model, watch = tied_to_its_batch()
    read = read_token_model(model, IMAGES)
    watch.error = raised = error()
    for _ in range(2):
        with pytest.raises(type(raised)) as caught, torch.no_grad():
            read.placeholder_images(IMAGES, torch.tensor([0, 1, 1]))
        assert caught.value is raised
    watch.error = None
    with torch.no_grad():
        assert len(read.placeholder_images(IMAGES, torch.tensor([0, 1, 1]))) == 1


@refusals
def test_models_that_refuse_another_batch_than_that_of_the_images_get_all_images(error):
    model, watch = tied_to_its_batch()
    read = read_token_model(model, IMAGES)
    watch.error = error()
    rows = torch.tensor([0, 1, 1])
    with torch.no_grad():
        assert torch.equal(read.placeholder_images(IMAGES, rows), IMAGES[rows])


@no_memory
def test_running_out_of_memory_is_not_taken_for_images_of_the_wrong_size(error):
    model, part = failing(lambda x: True)
    part.error = raised = error()
    with pytest.raises(type(raised)) as caught:
        read_token_model(model, IMAGES)
    assert caught.value is raised
    part.error = None
    assert len(read_token_model(model, IMAGES).levels) == 2


@refusals
def test_images_that_a_model_refuses_are_named(error):
    model, part = failing(lambda x: True)
    part.error = error()
    sentence = r"does not accept images \(3, 32, 32\), torch.float32 on cpu .*pass images of"
    with pytest.raises(UnreadableModelError, match=sentence):
        read_token_model(model, IMAGES)


@no_memory
def test_running_out_of_memory_while_axes_are_looked_at_is_raised_and_not_remembered(
    error, monkeypatch
):
    monkeypatch.setattr(reading, "_learn", lambda *_: None)
    model, part = failing(lambda x: len(x) == 2)
    read = read_token_model(model, IMAGES)
    part.error = raised = error()
    three = torch.cat([IMAGES, IMAGES[:1]])
    with explanation_state(model):
        with pytest.raises(type(raised)):
            read.record(three)
        part.error = None
        assert (
            read.record(three).image_axes
            == read_token_model(model, IMAGES).record(three).image_axes
        )


SIZES = []
"""What a hook sees is put back afterwards wherever the hook holds it, but not in a global list."""


@no_memory
def test_places_are_measured_image_by_image_where_memory_is_short(error):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **SMALL).eval()
    expected = read_token_model(model, IMAGES)

    def short(_, args):
        SIZES.append(len(args[0]))
        if len(args[0]) > 2:
            raise error()

    SIZES.clear()
    model.patch_embed.register_forward_pre_hook(short)
    found = read_token_model(model, IMAGES)
    assert SIZES == [2] + [4, 1, 1, 1, 1] * 2  # of two images
    assert found.views(IMAGES) == expected.views(IMAGES)


@no_memory
def test_errors_that_say_so_are_recognized_from_the_inside_out(error):
    assert is_out_of_memory(error())
    assert is_out_of_memory(raised_from(UnreadableModelError("wrapped"), error()))
    assert is_out_of_memory(MemoryError())


@refusals
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error())
    assert not is_out_of_memory(None)


def test_what_is_no_refusal_goes_on():
    def fail():
        raise KeyError("a mistake in the model")

    with pytest.raises(KeyError):
        unless_refused(fail)
    assert unless_refused(lambda: 3) == 3
