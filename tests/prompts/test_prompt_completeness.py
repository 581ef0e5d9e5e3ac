"""Scores of text prompts are decomposed completely, over the image and over the words."""

import functools

import pytest
import torch
from prompt_models import MODELS, PROMPTS, images, randomized

from libragrad_lightning import explain
from libragrad_lightning.prompts import explain_words, text_prompts

pytestmark = pytest.mark.rotating

WORDY = [name for name, model in MODELS.items() if model.has_words]


@functools.cache
def prompts_of(name, dtype=torch.float64):
    model = randomized(name).to(dtype)
    return text_prompts(model, MODELS[name].tokenizer(), PROMPTS)


def largest(name):
    """Return the score of a cosine of one: random cosines may be near zero."""
    return float(prompts_of(name, torch.float32).model.logit_scale.detach().exp())


@pytest.mark.parametrize("name", MODELS)
def test_maps_of_images_add_up_to_the_score(name):
    prompts, batch = prompts_of(name), images(name, 1, dtype=torch.float64)
    libra, plain = (explain(prompts, batch, rules=r, reward="logit") for r in ("libra", "plain"))
    assert (libra.residuals / libra.target_logit).abs().max() < 1e-12
    assert (plain.residuals / plain.target_logit).abs().max() > 1e-3
    single = explain(prompts_of(name, torch.float32), batch.float(), reward="logit")
    assert single.residuals.abs().max() < 1e-6 * largest(name)


@pytest.mark.parametrize("name", WORDY)
def test_words_add_up_to_the_score(name):
    prompts, batch = prompts_of(name), images(name, 1, dtype=torch.float64)
    libra, plain = (explain_words(prompts, batch, rules=r) for r in ("libra", "plain"))
    torch.testing.assert_close(libra.scores, prompts(batch).detach())
    total = libra.relevance.sum(2) + libra.elsewhere
    assert ((total - libra.scores) / libra.scores).abs().max() < 1e-12
    assert (libra.residuals / libra.scores).abs().max() < 1e-12
    assert (plain.residuals / plain.scores).abs().max() > 1e-3
    single = explain_words(prompts_of(name, torch.float32), batch.float())
    assert single.residuals.abs().max() < 1e-6 * largest(name)


@pytest.mark.parametrize("name", WORDY)
def test_words_are_told_from_special_tokens(name):
    words = explain_words(prompts_of(name), images(name, 1, 1, torch.float64)).words(0, 2)
    spelled = [string for string, _ in words]
    assert spelled == (["a", "red", "bus", "!"] if name.startswith("open") else [*"aredbus!"])
