"""What the page on text prompts shows runs, one snippet after the other."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "text_prompts.md"


@pytest.mark.filterwarnings("ignore")
def test_the_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((96, 64), 80).convert("RGB").save("street.jpg")
    text = PAGE.read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert text.count('pretrained="openai"') == 1
    names = {}
    for snippet in snippets:
        without_hub = snippet.replace('pretrained="openai"', "pretrained=None")
        exec(without_hub.replace("ViT-B-32", "ViT-S-32-alt"), names)
    assert names["explanation"].heatmap((224, 224)).shape == (1, 224, 224)
    assert Image.open("prompts.png").width > 1000
    found = names["found"]
    assert [word for word, _ in found.words(0, 0)] == ["a", "red", "bus"]
    torch.testing.assert_close(found.relevance.sum(2) + found.elsewhere, found.scores)
    module = names["ZeroShot"](names["model"], names["tokenizer"], ["bus", "tree"])
    assert module.zero_shot(names["images"]).shape == (1, 2)
