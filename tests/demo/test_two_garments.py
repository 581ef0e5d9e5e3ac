"""Scenes of two garments: texts are true of them, masks fit, and what is held out is never seen."""

import numpy as np
import pytest
import torch

from libragrad_lightning.demo import TwoGarments
from libragrad_lightning.demo.compositing import load_backgrounds, load_garments
from libragrad_lightning.demo.phrases import (
    ANY,
    CLASS_PROMPTS,
    COLORS,
    KINDS,
    PLACES,
    Texts,
    class_texts,
    draw_texts,
    vocabulary,
)
from libragrad_lightning.demo.scenes import (
    HELD_OUT,
    SCENE_SIZE,
    close_ups,
    compose_scenes,
    draw_things,
    load_cut_outs,
)
from libragrad_lightning.demo.word_tokenizer import WordTokenizer

HALF = SCENE_SIZE // 2


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    things = draw_things(60, held_out=True, rng=rng)
    black = np.zeros_like(load_backgrounds("val"))
    return compose_scenes(things, load_cut_outs("val", 2000), black, 0.6, 0.5, rng)


def said_again(phrase):
    """The attributes that a phrase names, read back from its words."""
    words, _, place = phrase.partition(" at the ")
    *_, noun = words.split()
    colors = [COLORS.index(w) for w in words.split() if w in COLORS]
    return (
        KINDS.index(noun) if noun in KINDS else ANY,
        colors[0] if colors else ANY,
        PLACES.index(place) if place else ANY,
    )


def is_true(text, things):
    """Whether a text is true, told by its words alone."""
    return all(
        any(
            all(a in (ANY, b) for a, b in zip(said_again(phrase), thing, strict=True))
            for thing in things
        )
        for phrase in text.split(" and ")
    )


def test_cut_outs_shine_only_where_they_cover_something():
    cut_outs = load_cut_outs("val", 200)
    assert (cut_outs.opacity == 0).any()
    assert (cut_outs.shades >= 0).all()
    assert (cut_outs.shades <= cut_outs.opacity + 1e-6).all()


def test_truth_is_what_the_words_say():
    rng = np.random.default_rng(1)
    things = draw_things(50, held_out=True, rng=rng)
    texts = draw_texts(things, captions=0.5, rng=rng)
    expected = [[is_true(text, scene) for text in texts.words()] for scene in things]
    found = texts.true_of(things)
    assert np.array_equal(found, expected)
    assert found.diagonal().all()
    assert not found.all()


def test_a_caption_needs_both_of_its_garments():
    red_bag, blue_boot = (KINDS.index("bag"), 0, 0), (KINDS.index("boot"), 2, 3)
    texts = Texts(np.array([[red_bag, blue_boot]]))
    assert texts.words() == ["a red bag at the top left and a blue boot at the bottom right"]
    swapped = [(red_bag[0], 2, 0), (blue_boot[0], 0, 3)]
    moved = [(*red_bag[:2], 3), (*blue_boot[:2], 0)]
    things = np.array([[red_bag, blue_boot], [blue_boot, red_bag], swapped, moved])
    assert texts.true_of(things)[:, 0].tolist() == [True, True, False, False]


def test_every_class_has_a_prompt_and_two_of_them_are_true(scenes):
    assert len(set(CLASS_PROMPTS)) == len(KINDS) * len(COLORS)
    assert (class_texts().true_of(scenes.things).sum(1) == 2).all()


def test_garments_lie_where_and_in_the_color_that_is_said(scenes):
    for image, things, masks in zip(scenes.images, scenes.things, scenes.masks, strict=True):
        assert not (masks[0] & masks[1]).any()
        for (_, color, place), mask in zip(things, masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert mask.any()
            assert set(2 * (rows // HALF) + columns // HALF) == {place}
            red, green, blue = image[mask].astype(float).mean(0)
            is_seen = {
                "red": red > 2 * max(green, blue),
                "green": green > 2 * max(red, blue),
                "blue": blue > 1.5 * max(red, green),
                "yellow": min(red, green) > 2 * blue,
                "pink": red > blue > green and blue > red / 2,
                "white": min(red, green, blue) > 0.8 * max(red, green, blue),
            }
            assert is_seen[COLORS[color]], (COLORS[color], red, green, blue)
        # The ground is black: what is bright is a garment.
        assert not (image.max(-1) > 130)[~masks.any(0)].any()


def test_a_close_up_shows_one_garment_and_nothing_of_the_other(scenes):
    close = close_ups(scenes)
    for which in range(2):
        rows = slice(which * len(scenes.images), (which + 1) * len(scenes.images))
        assert np.array_equal(close.things[rows, 0, :2], scenes.things[:, which, :2])
        kept = close.masks[rows, 0].sum((1, 2))
        assert np.array_equal(kept, scenes.masks[:, which].sum((1, 2)))
    assert np.array_equal(close.things[:, 0], close.things[:, 1])
    assert not np.isin(close.things[..., 2], range(len(PLACES))).any()


def test_what_is_held_out_is_never_trained_on():
    rng = np.random.default_rng(2)
    trained = draw_things(4000, held_out=False, rng=rng)[..., :2].reshape(-1, 2)
    evaluated = draw_things(4000, held_out=True, rng=rng)[..., :2].reshape(-1, 2)
    trained, evaluated = set(map(tuple, trained.tolist())), set(map(tuple, evaluated.tolist()))
    assert trained == evaluated - HELD_OUT
    assert len(evaluated) == len(CLASS_PROMPTS)
    assert evaluated > HELD_OUT
    words = {"red pullover", "yellow sneaker", "blue boot"}
    assert {f"{COLORS[color]} {KINDS[kind]}" for kind, color in HELD_OUT} == words


@pytest.mark.parametrize("split", ["val", "test"])
def test_garments_and_photographs_of_evaluation_are_others(split):
    trained = {image.tobytes() for image in load_garments("train", 16000).images}
    assert not trained & {image.tobytes() for image in load_garments(split, 2000).images}
    trained = {photograph.tobytes() for photograph in load_backgrounds("train")}
    assert not trained & {photograph.tobytes() for photograph in load_backgrounds(split)}


def small_data(**kwargs):
    return TwoGarments(batch_size=8, steps_per_epoch=3, num_val=10, num_test=6, **kwargs)


def test_batches_of_training_are_made_of_their_seed_and_are_never_the_same():
    def batches(seed):
        data = small_data(seed=seed, close_up_epochs=0)
        data.setup("fit")
        return list(data.train_dataloader())

    first, again, other = batches(0), batches(0), batches(1)
    assert len(first) == 3
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one["image"], two["image"])
        assert one["text"] == two["text"]
    assert not torch.equal(first[0]["image"], first[1]["image"])
    assert not torch.equal(first[0]["image"], other[0]["image"])
    assert first[0]["image"].shape == (8, 3, SCENE_SIZE, SCENE_SIZE)
    assert first[0]["true"].shape == (8, len(first[0]["text"]))
    assert first[0]["true"].any(1).all()
    assert len(set(first[0]["text"])) == len(first[0]["text"])


def test_close_ups_name_no_places():
    data = small_data(close_up_epochs=1, captions=1.0)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (16, 3, HALF, HALF)
    assert not any(" at " in text or " and " in text for text in batch["text"])
    assert batch["true"].any(1).all()


@pytest.mark.parametrize("close_up_epochs", [0, 1])
def test_every_batch_asks_for_all_that_is_not_held_out(close_up_epochs):
    data = small_data(close_up_epochs=close_up_epochs)
    data.setup("fit")
    for batch in data.train_dataloader():
        asked = set(batch["text"]) & set(CLASS_PROMPTS)
        assert len(asked) == len(CLASS_PROMPTS) - len(HELD_OUT)
        assert not asked & {class_prompt(*pair) for pair in HELD_OUT}


def class_prompt(kind, color):
    return CLASS_PROMPTS[kind * len(COLORS) + color]


def test_validation_scenes_are_always_the_same_and_carry_their_prompts():
    def batch(**kwargs):
        data = small_data(**kwargs)
        data.setup("validate")
        (found, _) = data.val_dataloader()
        return found

    first, again = batch(seed=0, background_tint=0.5), batch(seed=1, background_tint=0.0)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for label, mask in (("label", "mask"), ("other_label", "other_mask")):
        assert first["true"].gather(1, first[label][:, None]).all()
        assert first[mask].flatten(1).any(1).all()
    assert (first["true"].sum(1) == 2).all()


def test_words_are_tokens():
    tokenizer = WordTokenizer(vocabulary(), context=18)
    ids = tokenizer(["a red bag", "a blue bag at the top left"])
    assert ids.shape == (2, 18)
    assert tokenizer.decode(ids[0, :3].tolist()) == "a red bag"
    assert ids[0, 3] == tokenizer.end
    assert (ids[0, 4:] == tokenizer.padding).all()
    assert int(ids.max()) < tokenizer.vocab_size
    with pytest.raises(ValueError, match="'hat' is not among"):
        tokenizer(["a hat"])
    with pytest.raises(ValueError, match="has 18 words, but at most 17 are read"):
        tokenizer(["a bag " * 9])
