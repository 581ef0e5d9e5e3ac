"""What cannot be compared with images gets one sentence, whose advice works."""

import functools
import warnings

import lightning as L
import open_clip
import pytest
import torch
from prompt_models import (
    CONTEXT,
    MODELS,
    PROMPTS,
    TOKENIZER,
    TextTower,
    image_tower,
    images,
    letters,
    randomized,
)
from test_text_prompts import BATCH, SMALL, clip
from torch.utils.data import DataLoader

from libragrad_lightning import explain
from libragrad_lightning.prompts import PromptError, text_prompts

LONG = " ".join(["dog"] * CONTEXT)
WRONG = [
    ({"prompts": "a dog"}, r"must be a list of texts; pass \['a dog'\]", {"prompts": ["a dog"]}),
    ({"prompts": []}, "`prompts` is empty; pass at least one", {"prompts": ["dog"]}),
    ({"prompts": ["dog", " "]}, "`prompts` holds ' ', which says nothing", {"prompts": ["dog"]}),
    ({"templates": ["a photo"]}, "must hold '{}' once", {"templates": ["a {}"]}),
    ({"templates": []}, "`templates` is empty; pass at least one", {"templates": ["{}"]}),
    ({"prompts": [LONG]}, "'dog dog.*is too long .*16", {"prompts": [LONG[:40]]}),
]


@pytest.mark.parametrize(("wrong", "sentence", "right"), WRONG)
@pytest.mark.parametrize("name", ["open_clip-vit", "transformers-clip"])
def test_prompts_that_cannot_work(name, wrong, sentence, right):
    tokenizer, arguments = MODELS[name].tokenizer(), {"prompts": ["dog"]}
    right = {"prompts": [p[:11] for p in right["prompts"]]} if "prompts" in right else right
    model = randomized(name)
    with pytest.raises(PromptError, match=sentence):
        text_prompts(model, tokenizer, **{**arguments, **wrong})
    assert text_prompts(model, tokenizer, **{**arguments, **right})(images(name, 1)).shape == (3, 1)


def test_models_that_cannot_work():
    model = clip()
    with pytest.raises(PromptError, match=r"VisionTransformer does not embed both.*whole model"):
        text_prompts(model.visual, TOKENIZER, PROMPTS)
    with pytest.raises(PromptError, match=r"\(CLIP, str\); pass a model of images and texts, or"):
        text_prompts((model, "text"), TOKENIZER, PROMPTS)
    with pytest.raises(PromptError, match=r"tokenizer has 49408 tokens, but the model embeds 64"):
        text_prompts(randomized("transformers-clip"), TOKENIZER, PROMPTS)
    with pytest.raises(
        PromptError, match=r"does not take what the tokenizer returns \(ids \(1, 77"
    ):
        text_prompts(model, open_clip.SimpleTokenizer(), PROMPTS)
    with pytest.raises(
        PromptError, match=r"must return ids \[4, L\].*but returned a tensor \(4,\)"
    ):
        text_prompts(model, lambda texts: torch.arange(len(texts)), PROMPTS)
    other = text_prompts((image_tower(8), TextTower()), TOKENIZER, PROMPTS)
    with pytest.raises(
        PromptError, match="in 8 dimensions and texts in 16; pass encoders into one"
    ):
        explain(other, SMALL)
    tokens = text_prompts((image_tower(0), TextTower(dimensions=24)), TOKENIZER, PROMPTS)
    assert tokens(SMALL).shape == (3, 4)


def test_a_tokenizer_with_the_wrong_context_is_refused_and_another_works():
    with pytest.raises(PromptError, match=r"pass the `tokenizer` that the model was trained with"):
        text_prompts(clip(), open_clip.SimpleTokenizer(context_length=20), PROMPTS)
    assert text_prompts(clip(), TOKENIZER, PROMPTS)(BATCH).shape == (3, 4)


def test_an_encoder_of_tokens_is_refused():
    tower = image_tower()
    pair = (lambda batch: tower.forward_features(batch), TextTower())
    with pytest.raises(
        PromptError, match=r"must return embeddings \[B, D\].*returned \(3, 17, 24\)"
    ):
        text_prompts(pair, TOKENIZER, PROMPTS)(SMALL)


def ending_early(texts):
    """Ids of another model, whose largest one does not end a text."""
    rows = [[1, *(4 + len(word) for word in text.split()), 2] for text in texts]
    return torch.tensor([[*row, *[0] * (CONTEXT - len(row))] for row in rows])


def test_texts_that_end_elsewhere_for_the_model_are_noticed():
    sentence = r"another last word, so it does not read all.*pass the `tokenizer` that the model"
    with pytest.raises(PromptError, match=sentence):
        text_prompts(clip(), ending_early, ["a red elephant in snow"])
    assert text_prompts(clip(), TOKENIZER, ["a red elephant in snow"])(BATCH).shape == (3, 1)
    model = randomized("transformers-clip")
    model.text_model.eos_token_id = 60
    with pytest.raises(PromptError, match=r"embeds 'a b' as it does with another"):
        text_prompts(model, letters(), ["a b"])
    model.text_model.eos_token_id = 53
    assert text_prompts(model, letters(), ["a b"])(images("transformers-clip", 1)).shape == (3, 1)


def test_padding_that_a_model_reads_is_noticed():
    model = randomized("open_clip-siglip")
    short = functools.partial(TOKENIZER, context_length=CONTEXT - 4)
    with pytest.raises(
        PromptError, match=rf"returns 12 tokens, but the model reads {CONTEXT}.*context_length=16"
    ):
        text_prompts(model, short, PROMPTS)
    right = functools.partial(short, context_length=CONTEXT)
    assert text_prompts(model, right, PROMPTS)(images("open_clip-siglip", 1)).shape == (3, 4)


class Few:
    """A tokenizer of few tokens, the largest of which ends a text."""

    vocab_size = 56

    def __call__(self, texts):
        rows = [[1, *(4 + len(word) for word in text.split()), 55] for text in texts]
        return torch.tensor([[*row, *[0] * (CONTEXT - len(row))] for row in rows])


def test_a_tokenizer_with_far_fewer_tokens_is_warned_of():
    with pytest.warns(UserWarning, match=r"has 56 tokens, and the model embeds 49408.*pass the"):
        text_prompts(clip(), Few(), ["a cat"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text_prompts(clip(), TOKENIZER, PROMPTS)
        text_prompts(randomized("transformers-clip"), letters(), ["a b"])


class Holder(L.LightningModule):
    """Passes itself, or a part of it."""

    def __init__(self, whole):
        super().__init__()
        self.clip = clip()
        self.prompts = text_prompts(self if whole else self.clip, TOKENIZER, PROMPTS)

    def encode_image(self, batch):
        return self.clip.encode_image(batch)

    def encode_text(self, ids):
        return self.clip.encode_text(ids)


@pytest.mark.parametrize(
    "use",
    [
        lambda module: module.train(),
        lambda module: module.eval(),
        lambda module: module.double(),
        lambda module: module.state_dict(),
        lambda module: module.load_state_dict(Holder(False).state_dict(), strict=False),
        lambda module: module.prompts(BATCH),
        lambda module: explain(module.prompts, BATCH),
        lambda module: L.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False
        ).validate(module, DataLoader(BATCH, 3), verbose=False),
    ],
    ids=["train", "eval", "double", "state", "load", "call", "explain", "validate"],
)
@pytest.mark.filterwarnings("ignore")
def test_prompts_of_the_module_that_holds_them_are_refused(use):
    Holder.validation_step = lambda self, batch, _: self.prompts(batch)
    with pytest.raises(PromptError, match=r"a part of the Holder that was passed.*pass the part"):
        use(Holder(True))
    use(Holder(False))


def test_a_module_may_be_passed_by_others():
    module = Holder(False)
    assert text_prompts(module, TOKENIZER, PROMPTS).eval()(BATCH).shape == (3, 4)
