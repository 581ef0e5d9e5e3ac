"""An image has the same explanation alone and among others, wherever a model keeps its batch."""

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from libragrad_lightning import explain
from libragrad_lightning.attribution.explain import images_at_once
from libragrad_lightning.backward import ConstantObserver, LibraGradError
from libragrad_lightning.models import ImageAxis, TokenModel, explanation_state, read_token_model
from libragrad_lightning.models.image_axes import axes_of_batch, axes_of_pair, axis_of_one

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
        for name in ("attribution", "prefix", "token_biases", "image_biases", "reward_sums"):
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


def test_biases_that_training_moves_away_from_zero_have_been_located():
    model = random_model("torchvision", zero=("in_proj_bias",))
    images = images_of(2)  # divides the 10 tokens, so that a wrong place would not be refused
    read = read_token_model(model, images)
    with explanation_state(model):
        before = read.record(images)
        with torch.no_grad():
            for layer in model.encoder.layers:
                layer.self_attention.in_proj_bias.add_(1)
        after = read.record(images)
        fresh = read_token_model(model, images).record(images)
    assert after.image_axes == before.image_axes == fresh.image_axes


def test_sites_that_had_no_effect_are_looked_at_again_after_a_step():
    model = random_model("torchvision", zero=("out_proj.weight",))
    images = images_of(2)
    read = read_token_model(model, images)
    with explanation_state(model):
        assert None in read.record(images).image_axes.values()
        with torch.no_grad():
            for layer in model.encoder.layers:
                layer.self_attention.out_proj.weight.normal_()
        assert None not in read.record(images).image_axes.values()


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
    monkeypatch.delattr(TokenModel, "record")
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


def axes_in(record, images=2):
    """Return where images are, in a recorded forward pass of one image twice, or of several."""
    if images == 2:
        return axes_of_pair(*record(IMAGE.expand(2, -1, -1, -1)))
    generator = torch.Generator().manual_seed(1)
    others = torch.randn(images - 1, *IMAGE.shape[1:], generator=generator).double()
    return axes_of_batch(*record(torch.cat([IMAGE, others])))


LAYOUTS = [
    (time_first, (1, 1)),
    (first_token_alone, (1, 1)),
    (channels_first_of_all, (1, 1)),
    (time_first_rows, (0, TOKENS)),
    (windows, (0, 1)),
    (image_first, (0, 1)),
]


@pytest.mark.parametrize("images", [2, 3, 5])
@pytest.mark.parametrize(("of", "expected"), LAYOUTS)
def test_axes_are_found_from_an_image_twice_and_from_several(of, expected, images):
    found = axes_in(layout(of), images)
    assert list(found.values()) == [ImageAxis("AddBackward0", *expected)]


def test_axes_are_found_whatever_the_value_of_a_bias():
    def record(images):
        z0 = images.flatten(2).transpose(1, 2).detach().requires_grad_()
        nothing = torch.zeros(CHANNELS, dtype=z0.dtype, requires_grad=True)
        return (z0.transpose(0, 1) + nothing).sum(0), z0

    assert list(axes_in(record).values()) == [ImageAxis("AddBackward0", 1, 1)]


def test_a_site_without_effect_is_unknown():
    def record(images):
        z0 = images.flatten(2).transpose(1, 2).detach().requires_grad_()
        bias = torch.zeros(CHANNELS, dtype=z0.dtype, requires_grad=True)
        return ((z0.transpose(0, 1) + bias) * 0).sum(0), z0

    assert list(axes_in(record).values()) == [None]


class Company(Patches):
    """Images of a batch see each other."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.own, self.mlp = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, z):
            z = z + self.own(self.norm(z)).mean(0, keepdim=True) * z
            return z + self.mlp(z).relu()

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(self.Block(), self.Block())

    def mixed(self, tokens):
        return self.blocks(tokens)


def test_images_that_see_each_other_have_no_map_of_their_own():
    torch.manual_seed(0)
    model = Company().double()
    with pytest.raises(LibraGradError, match=r"see each other.*`batch_size=1`"):
        explain(model, images_of(3))
    assert explain(model, images_of(3), batch_size=1).residuals.abs().max() < 1e-12


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((TOKENS, 1, CHANNELS), 1), ((1, TOKENS, 4), 0), ((TOKENS, 4), 0), ((6, 3, 4), 0)],
)
def test_an_image_alone_is_where_an_axis_has_length_one(shape, axis):
    assert axis_of_one("AddBackward0", shape) == ImageAxis("AddBackward0", axis, 1)


def test_a_site_shows_by_any_of_its_constants():
    def record(images):
        z0 = images.flatten(2).transpose(1, 2).detach().requires_grad_()
        recorded = torch.ones(1, 1, CHANNELS, dtype=z0.dtype, requires_grad=True)
        unrecorded = torch.zeros(1, len(images), CHANNELS, dtype=z0.dtype)
        with ConstantObserver():
            rows = [z0.transpose(0, 1), recorded.expand(-1, len(images), -1), unrecorded]
            return torch.cat(rows).sin().sum(0), z0

    assert list(axes_in(record).values()) == [ImageAxis("CatBackward0", 1, 1)]


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

    found = axes_in(record).values()
    assert [(axis.axis, axis.repeats) for axis in found] == [(0, TOKENS)] * 2
