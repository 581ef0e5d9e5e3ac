"""Text: each word in a font that has its characters, and the truth where there is none."""

import matplotlib.font_manager
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont, features

from libragrad_lightning.heatmaps import PanelColumn, fonts, panel, typography
from libragrad_lightning.heatmaps.panel import from_pil
from libragrad_lightning.heatmaps.typography import can_draw, font_for, wrap

needs_raqm = pytest.mark.skipif(not features.check("raqm"), reason="Pillow has no Raqm here")


def build_font(path, characters, height):
    """A font whose characters are 500 wide bars of a height, in units of 1000 per em."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, height), (500, height), (500, 0)):
        pen.lineTo(corner)
    pen.closePath()
    empty = TTGlyphPen(None).glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "bar"])
    builder.setupCharacterMap({ord(character): "bar" for character in characters})
    builder.setupGlyf({".notdef": empty, "bar": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "bar": (500, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def forget():
    fonts.find_font.cache_clear()
    fonts._installed.cache_clear()


@pytest.fixture
def install(monkeypatch):
    """Make the machine have certain font files and no others."""

    def install(*files):
        found = [str(file) for file in files]
        monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: found)
        forget()

    yield install
    forget()


@pytest.fixture
def without_raqm(monkeypatch):
    monkeypatch.setattr(typography, "_has_layout_engine", lambda: False)


def drawn(text, size=20):
    """Ink of a line, 0 to 1, which begins at column 10; row 50 is the first below the base line."""
    image = Image.new("RGB", (400, 100), "white")
    font = font_for(text, size)
    font.draw(ImageDraw.Draw(image), 10, 50 - font._first.getmetrics()[0], text)
    return 1 - np.asarray(image.convert("L")) / 255


def ink_box(ink):
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def test_without_a_font_nothing_is_promised_and_boxes_are_drawn(install):
    install()
    for name in ("犬", "ネコ", "고양이", "แมว", "बिल्ली", "dog 犬", "🦒", "a\x07", "\ud800"):
        assert not can_draw(name), name
    for name in ("dog", "кот", "γάτα", "mèo", "", " ", "ﬁ", "→", "❤\ufe0f", "a\u200db"):
        assert can_draw(name), name
    assert drawn("犬犬").any()


def test_an_installed_font_that_has_the_characters_is_found(install, tmp_path):
    install(build_font(tmp_path / "some.ttf", "犬猫", 600))
    assert can_draw("犬 dog 猫")
    assert not can_draw("犬馬")
    # At 20 pixels per em, a bar of 500 x 600 units is 10 x 12 pixels.
    assert ink_box(drawn("犬")) == (38, 50, 10, 20)
    assert ink_box(drawn("犬猫犬")) == (38, 50, 10, 40)
    assert font_for("犬猫", 20).getlength("犬猫") == 20


def test_words_in_several_fonts_stand_on_one_line_one_after_the_other(install, tmp_path):
    first = build_font(tmp_path / "first.ttf", "犬", 600)
    second = build_font(tmp_path / "second.ttf", "แ", 300)
    install(first, second)
    text = "a 犬 แ b"
    assert [path for _, path in fonts.split_by_font(text)] == [
        fonts.DEJAVU,
        first,
        second,
        fonts.DEJAVU,
    ]
    assert "".join(run for run, _ in fonts.split_by_font(text)) == text
    ink = drawn(text)
    start = 10 + round(font_for(text, 20).getlength("a "))
    np.testing.assert_array_equal(ink[38:50, start : start + 10] > 0.5, True)
    np.testing.assert_array_equal(ink[:38, start : start + 10], 0)
    whole = font_for(text, 20).getlength(text)
    assert ink_box(ink)[3] <= 10 + whole + 1


def test_a_word_stays_in_one_font_that_has_all_of_it(install, tmp_path):
    partly = build_font(tmp_path / "a.ttf", "犬", 300)
    wholly = build_font(tmp_path / "b.ttf", "犬猫12", 600)
    install(partly, wholly)
    assert fonts.split_by_font("犬猫12") == [("犬猫12", wholly)]
    assert fonts.split_by_font("犬") == [("犬", partly)]
    assert fonts.split_by_font("犬 馬") == [("犬 ", partly), ("馬", fonts.DEJAVU)]
    assert fonts.split_by_font("犬x") == [("犬", partly), ("x", fonts.DEJAVU)]


def test_marks_and_joiners_stay_with_their_letter(install, tmp_path):
    file = build_font(tmp_path / "a.ttf", "犬", 600)
    install(file)
    # No font has the dog with an accent, and the accent alone would float.
    assert fonts.split_by_font("犬\u0301\u200dx") == [("犬\u0301\u200dx", fonts.DEJAVU)]
    assert not can_draw("犬\u0301")
    assert fonts.split_by_font("犬\ufe0f") == [("犬\ufe0f", file)]


def test_decomposed_names_are_composed(install, tmp_path):
    install(build_font(tmp_path / "a.ttf", "한", 600))
    decomposed = "\u1112\u1161\u11ab"
    assert can_draw(decomposed)
    assert ink_box(drawn(decomposed)) == (38, 50, 10, 20)


def test_fonts_are_tried_in_a_fixed_order_and_odd_ones_never(install, tmp_path):
    names = [
        "NotoSans-Bold.ttf",
        "NotoSerif-Regular.ttf",
        "Microhei.ttc",
        "LastResort.otf",
        "Noto Color Emoji.ttf",
        "NotoSans-Regular.ttf",
    ]
    install(*(tmp_path / name for name in names))
    assert [path.name for path in fonts.installed_fonts()] == [
        "NotoSans-Regular.ttf",
        "Microhei.ttc",
        "NotoSans-Bold.ttf",
        "NotoSerif-Regular.ttf",
    ]


def test_files_that_are_no_fonts_are_passed_over(install, tmp_path):
    (tmp_path / "a.ttf").write_text("no font")
    install(tmp_path / "a.ttf", tmp_path / "missing.ttf", build_font(tmp_path / "b.ttf", "犬", 600))
    assert can_draw("犬")
    assert not can_draw("猫")


@pytest.mark.usefixtures("without_raqm")
def test_without_the_layout_engine_what_needs_it_is_not_promised(install, tmp_path):
    install(build_font(tmp_path / "a.ttf", "कमिल\u094d犬", 600))
    for name in ("قطة", "חתול", "कि", "ल\u094dल"):
        assert not can_draw(name), name
    for name in ("кот", "कमल", "犬", "é"):
        assert can_draw(name), name
    np.testing.assert_array_equal(drawn("犬\u200d\ufe0f"), drawn("犬"))


@needs_raqm
def test_text_from_right_to_left_is_promised_and_joined():
    assert can_draw("قطة")
    assert can_draw("חתול")
    joined, apart = (font_for(text, 20).getlength(text) for text in ("بب", "ب\u200cب"))
    assert joined < apart


@needs_raqm
def test_numbers_after_a_name_from_right_to_left_stand_on_its_right():
    ink, name = drawn("חתול 0.93"), drawn("חתול")
    left, right = ink_box(name)[2:]
    np.testing.assert_array_equal(ink[:, left:right], name[:, left:right])
    assert ink_box(ink)[3] > right + font_for("é", 20).getlength("0.9")


def test_panels_show_the_installed_font(install, tmp_path):
    install(build_font(tmp_path / "a.ttf", "犬", 600))
    picture = from_pil(Image.new("RGB", (150, 100), (0, 250, 0)))
    shown = panel([PanelColumn("犬", picture)], "label 犬", font_size=20)
    dark = (shown == 32).all(dim=0).numpy()
    # The title is one bar of 10 x 12 pixels, centered over the picture.
    rows, columns = np.nonzero(dark[:40])
    assert np.ptp(rows) + 1 == 12
    assert np.ptp(columns) + 1 == 10
    assert abs(columns.mean() - (20 + 75 - 0.5)) <= 1


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.text("abcXYZ.,|0", min_size=1, max_size=30), max_size=12),
    width=st.integers(60, 300),
)
def test_wrapped_lines_fit_and_lose_no_word_that_fits(words, width):
    text = " ".join(words)
    font = font_for(text, 14)
    lines = wrap(text, font, width)
    assert all(font.getlength(line) <= width for line in lines)
    if all(font.getlength(word) <= width for word in words):
        assert " ".join(lines) == text
    else:
        assert any(line.endswith("...") for line in lines)


def test_lines_stand_below_each_other_around_their_center():
    picture = Image.new("RGB", (120, 100), "white")
    font = font_for("Abc wider", 12)
    typography.draw_lines(ImageDraw.Draw(picture), ["Abc", "Abc wider"], 60, 10, font, 40)
    ink = np.array(picture.convert("L")) < 128
    for top, line in ((10, "Abc"), (50, "Abc wider")):
        rows = ink[top : top + 20]
        columns = np.flatnonzero(rows.any(0))
        assert (columns[0] + columns[-1]) / 2 == pytest.approx(60, abs=1.5), line
        assert columns[-1] - columns[0] == pytest.approx(font.getlength(line), abs=3)
    assert ink.sum() == ink[10:30].sum() + ink[50:70].sum()


def test_plain_text_is_set_in_the_font_of_pillow_and_other_text_in_dejavu():
    own = ImageFont.load_default(size=20)
    assert font_for("width", 20).getlength("width") == own.getlength("width")
    dejavu = ImageFont.truetype(str(fonts.DEJAVU), 20)
    assert font_for("wídth", 20).getlength("width") == dejavu.getlength("width")
    assert own.getlength("width") != dejavu.getlength("width")


def test_white_space_can_be_drawn_and_other_control_characters_cannot():
    assert can_draw("two\twords\nand one")
    assert not can_draw("bell\a")


def test_line_breaks_are_kept():
    font = font_for("", 14)
    assert wrap("one two\nthree", font, 1000) == ["one two", "three"]
    assert wrap("", font, 1000) == []


def test_letters_beyond_ascii_are_not_drawn_as_boxes():
    characters = "éßłΩя→"
    assert len({drawn(character).tobytes() for character in characters}) == len(characters)
