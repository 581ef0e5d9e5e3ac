"""Which tokens of a text are its words, whatever a tokenizer returns."""

import pytest
import torch

from libragrad_lightning.prompts import PromptError
from libragrad_lightning.prompts.tokens import tokenized, vocabulary_size

BEGIN, END, PADDING = 1, 2, 3
WORDS = {"!": PADDING, "red": 4, "bag": 5, "boot": 6}


def rows(texts, length=6):
    """Ids of texts; what pads them is a word too, and what is too long is cut off."""
    ids = [[BEGIN, *(WORDS[w] for w in text.split()), END] for text in texts]
    return [(row + [PADDING] * length)[:length] for row in ids]


def ids_alone(texts):
    return torch.tensor(rows(texts))


def is_special(tokenizer, text):
    return tokenized(tokenizer, [text], None).special[0].tolist()


def test_what_a_text_without_words_has_too_is_no_word():
    assert is_special(ids_alone, "red bag") == [True, False, False, True, True, True]


def test_a_word_that_pads_the_end_is_a_word_before_it():
    assert is_special(ids_alone, "red ! bag") == [True, False, False, False, True, True]
    assert is_special(ids_alone, "red !") == [True, False, False, True, True, True]


class Declaring:
    """Says which ids are special."""

    all_special_ids = (BEGIN, END, PADDING)

    def __call__(self, texts):
        return ids_alone(texts)


def test_what_a_tokenizer_declares_is_no_word_anywhere():
    assert is_special(Declaring(), "red ! bag") == [True, False, True, False, True, True]


def test_masks_tell_where_a_text_ends():
    def masked(texts):
        lengths = torch.tensor([len(text.split()) + 2 for text in texts])
        return {
            "input_ids": ids_alone(texts),
            "attention_mask": (torch.arange(6) < lengths[:, None]).long(),
            "text": texts,
        }

    assert is_special(masked, "red bag") == [True, False, False, True, True, True]
    found = tokenized(masked, ["red bag", "boot"], None)
    assert set(found.inputs) == {"input_ids", "attention_mask"}
    assert (len(found), found.ids.shape) == (2, (2, 6))


def test_a_tokenizer_may_refuse_texts_without_words_or_give_them_another_length():
    def refusing(texts):
        if "" in texts:
            raise ValueError
        return ids_alone(texts)

    assert is_special(refusing, "red bag") == [False] * 6

    def tight(texts):
        return torch.tensor([[WORDS[w] for w in text.split()] for text in texts]).long()

    assert is_special(tight, "red bag") == [False, False]


def test_strings_of_words():
    class Decoding(Declaring):
        vocab_size = 9

        def decode(self, ids):
            return f" <{ids[0]}> "

    found = tokenized(Decoding(), ["red bag"], None)
    assert found.words(0)[:3] == ["<1>", "<4>", "<5>"]
    assert vocabulary_size(Decoding(), found) == 9
    bare = tokenized(ids_alone, ["red bag"], None)
    assert bare.words(0)[:3] == ["1", "4", "5"]
    assert vocabulary_size(ids_alone, bare) == 6
    assert bare.rows(slice(0, 1), torch.device("cpu"))[""].tolist() == rows(["red bag"])


def test_texts_that_are_cut_off_are_refused_and_shown():
    with pytest.raises(PromptError, match=r"'red red red red red' is too long .the tok"):
        tokenized(ids_alone, ["red", "red red red red red"], None)
    long = " ".join(["boot"] * 12)
    assert len(long) == 59
    with pytest.raises(PromptError, match=f"'{long}' is too long"):
        tokenized(ids_alone, [long], None)
    longer = " ".join(["boot"] * 13)
    with pytest.raises(PromptError, match=rf"'{longer[:57]}\.\.\.' is too long"):
        tokenized(ids_alone, [longer], None)


class OfTransformers:
    """Pads as tokenizers of transformers do."""

    def __init__(self, longest):
        self.model_max_length, self.asked = longest, []

    def __call__(self, texts, padding, truncation, max_length=None):
        self.asked.append((padding, truncation, max_length))
        found = [[BEGIN, *(WORDS[w] for w in text.split()), END] for text in texts]
        length = max(map(len, found)) if max_length is None else max_length
        return {"input_ids": [row + [PADDING] * (length - len(row)) for row in found]}


def test_texts_are_padded_to_the_context_of_the_model_or_of_the_tokenizer():
    tokenizer = OfTransformers(8)
    assert tokenized(tokenizer, ["red bag", "boot"], None).ids.shape == (2, 8)
    assert tokenizer.asked[0] == ("max_length", False, 8)
    assert tokenized(tokenizer, ["red bag", "boot"], 5).ids.shape == (2, 5)
    with pytest.raises(
        PromptError, match=r"'red bag boot boot' is too long .6 tokens, and the mod"
    ):
        tokenized(tokenizer, ["boot", "red bag boot boot"], 5)
    endless = OfTransformers(10**30)
    assert tokenized(endless, ["red bag", "boot"], None).ids.shape == (2, 4)
    assert endless.asked[0] == ("longest", False, None)
