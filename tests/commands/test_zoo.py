"""``libragrad zoo``: a row for each model, whatever becomes of it."""

import csv

import pytest
import timm

from libragrad_lightning.cli import main
from libragrad_lightning.commands import zoo


def rows(printed):
    head, *lines = printed.splitlines()
    assert head == zoo.HEADER
    return [line.split(maxsplit=2) for line in lines]


def test_every_model_of_a_pattern_has_a_row(tmp_path, capsys):
    path = tmp_path / "zoo.csv"
    main(["zoo", "test_vit", "timm/test_vit*", "vit_huge_patch14_224", "--output", str(path)])
    found = rows(capsys.readouterr().out)
    names = ["test_vit", "test_vit2", "test_vit3", "test_vit4", "test_vit_relpos"]
    assert [name for name, *_ in found] == [*names, "vit_huge_patch14_224"]
    assert found[-1][1:] == ["630.8", "more than max_parameters=100"]
    with path.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["model"] for row in written] == [*names, "vit_huge_patch14_224"]
    for row in written[:-1]:
        assert float(row["libra"]) < 1e-13 < 0.1 < float(row["plain"])
        assert row["tokens"] == "10x10"
    assert written[0]["levels"] == "6"
    assert float(written[0]["parameters"]) == pytest.approx(0.366, abs=0.1)


def test_a_model_that_fails_does_not_hide_the_others(capsys, monkeypatch):
    create = timm.create_model

    def failing(name, **given):
        model = create(name, **given)
        if name == "test_vit2":
            model.forward = lambda images: images[:, 0, 0, :5].exp()
        if name == "test_vit3":
            model.forward = None
        return model

    monkeypatch.setattr(timm, "create_model", failing)
    main(["zoo", "test_vit?", "--max_parameters", "0.95"])
    found = {name: rest for name, *rest in rows(capsys.readouterr().out)}
    assert found["test_vit2"][1].startswith("refused: No blocks were found")
    assert found["test_vit3"][1].startswith("TypeError: ")
    assert found["test_vit4"][1] == "more than max_parameters=0.95"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope*"], "error: timm has no model 'nope*'; change models."),
        ([], "error: the following arguments are required: models"),
        (["test_vit", "--max_parameters", "x"], "error: max_parameters: "),
    ],
)
def test_mistakes_end_in_one_sentence(arguments, said, capsys):
    with pytest.raises(SystemExit) as ending:
        main(["zoo", *arguments])
    assert ending.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(said)
