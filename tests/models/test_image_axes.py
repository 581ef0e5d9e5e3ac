"""An image has the same explanation alone and among others, wherever a model keeps its batch."""

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from libragrad_lightning import explain
from libragrad_lightning.attribution.explain import images_at_once
from libragrad_lightning.backward import ConstantObserver
from libragrad_lightning.models import ImageAxis, TokenModel, explanation_state, read_token_model
from libragrad_lightning.models.image_axes import image_axes

torch.set_num_threads(1)
TOKENS, CHANNELS = 6, 4


class Patches(nn.Module):
    """Patch embedding, a mixer of tokens and a head."""

    def __init__(self, class_token=False):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.first = nn.Parameter(torch.zeros(1, 1, 8)) if class_token else None
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        if self.first is None:
            return self.head(self.mixed(tokens).mean(1))
        tokens = torch.cat([self.first.expand(len(images), -1, -1), tokens], 1)
        return self.head(self.mixed(tokens)[:, 0])


class Encoder(Patches):
    def __init__(self, norm_first, class_token):
        super().__init__(class_token)
        layer = nn.TransformerEncoderLayer(
            8, 2, 16, batch_first=True, norm_first=norm_first, activation="gelu"
        )
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def mixed(self, tokens):
        return self.blocks(tokens)


class Decoder(Patches):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        self.blocks = nn.TransformerDecoder(layer, 2)
        self.memory = nn.Parameter(torch.zeros(1, 5, 8))

    def mixed(self, tokens):
        return self.blocks(tokens, self.memory.expand(len(tokens), -1, -1))


class TimeFirst(Patches):
    """Blocks whose layers add their biases to `[T, B, D]`."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.linear = nn.MultiheadAttention(8, 2), nn.Linear(8, 8)
            self.bias = nn.Parameter(torch.zeros(8))

        def forward(self, x):
            y = x.transpose(0, 1)
            y = y + self.attention(y, y, y, need_weights=False)[0] + self.bias
            return x + nn.functional.gelu(self.linear(y)).transpose(0, 1)

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(self.Block(), self.Block())

    def mixed(self, tokens):
        return self.blocks(tokens)


class Rows(Patches):
    """Blocks that add their biases to the rows of `[T, B, D]`."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            rows = x.transpose(0, 1).reshape(-1, 8)
            rows = self.second(nn.functional.gelu(self.first(rows)))
            return x + rows.view(x.shape[1], x.shape[0], 8).transpose(0, 1)

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(self.Block(), self.Block())

    def mixed(self, tokens):
        return self.blocks(tokens)


MODELS = {
    "encoder": lambda: Encoder(norm_first=False, class_token=False),
    "encoder, norm first": lambda: Encoder(norm_first=True, class_token=False),
    "encoder, class token": lambda: Encoder(norm_first=False, class_token=True),
    "decoder": Decoder,
    "time first": TimeFirst,
    "rows": Rows,
    "torchvision": lambda: VisionTransformer(12, 4, 2, 2, 8, 16, num_classes=3),
}


def random_model(name, zero=()):
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    for path, parameter in model.named_parameters():
        parameter.data.normal_(0, 0.4)
        if path.endswith(tuple(zero)):
            parameter.data.zero_()
    return model


def images_of(count):
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, 12, 12, generator=generator).double()


def assert_equal_alone(model, images):
    together = explain(model, images, batch_size=len(images), reward="logit")
    for size in (1, 2):
        apart = explain(model, images, batch_size=size, reward="logit")
        for name in ("attribution", "prefix", "token_biases", "image_biases", "fullgrad_sums"):
            torch.testing.assert_close(
                getattr(apart, name), getattr(together, name), rtol=0, atol=1e-12, msg=name
            )
    assert together.residuals.abs().max() < 1e-12
    return together


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("name", MODELS)
def test_an_image_is_explained_alone_as_in_a_batch(name, count):
    explanation = assert_equal_alone(random_model(name), images_of(count))
    assert explanation.token_biases.abs().max() > 1e-2  # there is something to be misplaced


@pytest.mark.parametrize("zero", [("in_proj_bias",), ("bias",), ("out_proj.weight",)])
@pytest.mark.parametrize("name", MODELS)
def test_biases_without_effect_add_nothing_wherever_they_are(name, zero):
    assert_equal_alone(random_model(name, zero), images_of(4))  # 9 patches, 10 with a class token


def test_a_fresh_torchvision_model_is_explained_in_any_batch():
    torch.manual_seed(0)
    model = VisionTransformer(12, 4, 2, 2, 8, 16, num_classes=3).double().eval()
    assert model.encoder.layers[0].self_attention.in_proj_bias.abs().max() == 0
    nn.init.normal_(model.heads.head.weight)
    for count in (2, 3, 4):
        assert_equal_alone(model, images_of(count))


def test_biases_that_training_moves_away_from_zero_are_looked_at_again():
    model = random_model("torchvision", zero=("in_proj_bias",))
    images = images_of(2)  # divides the 10 tokens, so that a wrong place would not be refused
    read = read_token_model(model, images)
    for step in range(2):
        with explanation_state(model):
            recording = read.record(images)
            fresh = read_token_model(model, images).record(images)
        assert recording.image_axes == fresh.image_axes
        if step == 0:
            before = len(recording.image_axes)
            with torch.no_grad():
                for layer in model.encoder.layers:
                    layer.self_attention.in_proj_bias.add_(1)
    assert len(recording.image_axes) > before


def test_models_that_diverged_give_nan_and_no_sentence_about_batches():
    model = random_model("torchvision")
    for parameter in model.parameters():
        parameter.data.fill_(torch.nan)
    explanation = explain(model, images_of(3), batch_size=3, unknown="ignore")
    assert explanation.attribution.isnan().all()


@pytest.mark.parametrize("name", MODELS)
def test_the_memory_of_one_image_is_that_of_its_recording(name, monkeypatch):
    model, images = random_model(name), images_of(4)
    read = read_token_model(model, images)
    monkeypatch.delattr(TokenModel, "_pair")
    with explanation_state(model):
        assert images_at_once(read, images, memory_gib=1e-2) > 1


def layout(of):
    """Return what records a model that adds a bias to values in a layout."""

    def record(images):
        z0 = images.flatten(2).transpose(1, 2).detach().requires_grad_()  # [B, T, C]
        values, back = of(z0)
        bias = torch.ones(values.shape[-1], dtype=z0.dtype, requires_grad=True)
        return back((values + bias).sin()).sum(1), z0

    return record


def time_first(z0):
    return z0.transpose(0, 1), lambda x: x.transpose(0, 1)


def time_first_rows(z0):
    shape = z0.transpose(0, 1).shape
    return z0.transpose(0, 1).reshape(-1, CHANNELS), lambda x: x.view(shape).transpose(0, 1)


def channels_first_of_all(z0):
    return z0.permute(2, 0, 1), lambda x: x.permute(1, 2, 0)


def windows(z0):
    shape = (len(z0) * 2, TOKENS // 2, CHANNELS)
    return z0.reshape(shape), lambda x: x.view(-1, TOKENS, CHANNELS)


def image_first(z0):
    return z0, lambda x: x


def first_token_alone(z0):
    return z0.transpose(0, 1), lambda x: x.transpose(0, 1)[:, :1]


IMAGE = torch.randn(1, CHANNELS, 2, 3, generator=torch.Generator().manual_seed(0)).double()


def axes_in(record, alone):
    return image_axes(lambda: record(IMAGE.expand(2, -1, -1, -1)), record(IMAGE) if alone else None)


LAYOUTS = [
    (time_first, (1, 1), (1, 1)),
    (first_token_alone, (1, 1), (1, 1)),
    (channels_first_of_all, (1, 1), (1, 1)),
    (time_first_rows, (0, TOKENS), None),
    (windows, (0, 1), (0, 1)),
    (image_first, (0, 1), None),
]


@pytest.mark.parametrize(("of", "several", "one"), LAYOUTS)
def test_axes_are_found_for_several_images_and_for_one(of, several, one):
    for alone, expected in ((False, several), (True, one)):
        found = axes_in(layout(of), alone)
        axes = [ImageAxis("AddBackward0", *expected)] if expected else []
        assert list(found.values()) == axes


@pytest.mark.parametrize("alone", [False, True])
def test_a_site_that_no_image_touches_is_unknown(alone):
    def record(images):
        z0 = images.flatten(2).transpose(1, 2).detach().requires_grad_()
        nothing = torch.zeros(CHANNELS, dtype=z0.dtype, requires_grad=True)
        return (z0.transpose(0, 1) + nothing).sum(0), z0

    assert axes_in(record, alone) == {}


def test_one_image_and_two_that_run_different_operations_have_no_axes_in_common():
    def record(images):
        logits, z0 = layout(time_first)(images)
        return (logits + torch.ones(1, requires_grad=True) if len(images) == 2 else logits), z0

    assert axes_in(record, True) == {}
    assert len(axes_in(record, False)) == 2


def test_one_image_may_be_added_to_by_another_operation():
    def record(images):
        logits, z0 = layout(time_first)(images)
        bias = torch.ones(CHANNELS, dtype=z0.dtype, requires_grad=True)
        weight = torch.eye(CHANNELS, dtype=z0.dtype)
        if len(images) == 1:  # as `F.linear` does for what is contiguous then
            return torch.addmm(bias, logits, weight), z0
        return logits @ weight + bias, z0

    found = axes_in(record, True)
    assert sorted(axis.operation for axis in found.values()) == ["AddBackward0", "AddmmBackward0"]


def test_values_of_one_image_in_another_form_have_no_axis():
    def record(images):
        logits, z0 = layout(time_first)(images)
        bias = torch.ones(CHANNELS, dtype=z0.dtype, requires_grad=True)
        values = z0.transpose(0, 1)
        if len(images) == 1:
            values = values[:, 0]
        return logits + (values + bias).view(TOKENS, -1, CHANNELS).sin().sum(0), z0

    several, one = (axes_in(record, alone) for alone in (False, True))
    assert (len(several), len(one)) == (2, 1)


def test_a_site_shows_by_any_of_its_constants():
    def record(images):
        z0 = images.flatten(2).transpose(1, 2).detach().requires_grad_()
        recorded = torch.ones(1, 1, CHANNELS, dtype=z0.dtype, requires_grad=True)
        unrecorded = torch.zeros(1, len(images), CHANNELS, dtype=z0.dtype)
        with ConstantObserver():
            rows = [z0.transpose(0, 1), recorded.expand(-1, len(images), -1), unrecorded]
            return torch.cat(rows).sin().sum(0), z0

    for alone in (False, True):
        found = axes_in(record, alone)
        assert list(found.values()) == [ImageAxis("CatBackward0", 1, 1)]


@pytest.mark.parametrize("token", range(TOKENS))
def test_the_axis_of_a_single_token_is_that_of_sites_of_its_form(token):
    def record(images):
        z0 = images.flatten(2).transpose(1, 2).detach().requires_grad_()
        rows, back = time_first_rows(z0)
        first, second = (torch.ones(CHANNELS, dtype=z0.dtype, requires_grad=True) for _ in range(2))
        everywhere = back((rows + first).sin())
        rows, back = time_first_rows(everywhere)
        alone = back((rows + second).sin())[:, token]
        return alone + everywhere.sum(1), z0

    found = axes_in(record, False).values()
    assert [(axis.axis, axis.repeats) for axis in found] == [(0, TOKENS)] * 2
