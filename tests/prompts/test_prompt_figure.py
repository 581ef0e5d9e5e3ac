"""The figure has a line for each prompt, a column for each method that applies."""

import pytest
import torch
from prompt_models import TOKENIZER, images, letters, randomized
from test_text_prompts import clip

import libragrad_lightning.prompts.figure as drawing
from libragrad_lightning import explain
from libragrad_lightning.backward import LibraGradError
from libragrad_lightning.prompts import PAPER_COLUMNS, Column, prompt_figure, text_prompts


@pytest.fixture
def lines(monkeypatch):
    """What panels are drawn of."""
    drawn, draw = [], drawing.explanation_panel

    def seen(image, maps, caption, **kwargs):
        drawn.append((image, maps, caption))
        return draw(image, maps, caption=caption, **kwargs)

    monkeypatch.setattr(drawing, "explanation_panel", seen)
    return drawn


def test_the_figure_shows_every_prompt_in_every_image(lines):
    prompts, batch = (
        text_prompts(clip(), TOKENIZER, ["a cat", "two dogs"]),
        images("open_clip-vit", 2),
    )
    batch = batch.double()
    figure = prompt_figure(prompts, batch[:2], column_size=64)
    assert figure.dtype == torch.uint8
    assert figure.shape[0] == 3
    assert [caption for _, _, caption in lines] == ["a cat", "two dogs"] * 2
    _, maps, _ = lines[3]
    assert list(maps) == list(PAPER_COLUMNS)
    expected = explain(prompts, batch[1:2], target=1, reward="logit").attribution[0]
    torch.testing.assert_close(maps["Libra FullGrad+"], expected)
    assert len({tuple(m.flatten().tolist()) for m in maps.values()}) == len(maps)


def test_methods_that_do_not_apply_are_left_out_with_a_warning(lines):
    prompts = text_prompts(randomized("transformers-siglip"), letters(), ["a cat"])
    batch = images("transformers-siglip", 2, 1)
    with pytest.warns(UserWarning, match=r"GenAtt is left out: .*no class token"):
        prompt_figure(prompts, batch, column_size=64)
    assert "GenAtt" not in lines[0][1]
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(LibraGradError, match="no class token"),
    ):
        prompt_figure(prompts, batch, columns={"GenAtt": Column("genatt")})
