"""What is said of scenes: garments by kind, color and place, and which texts are true."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

KINDS = ("trousers", "pullover", "dress", "sandal", "sneaker", "bag", "boot")
"""Kinds of garments in scenes."""

COLORS = ("red", "green", "blue", "yellow", "pink", "white")
"""Their colors."""

PLACES = ("top left", "top right", "bottom left", "bottom right")
"""Their places: the quarters of a scene."""

ANY = -1
"""An attribute that a phrase does not name."""

Things = npt.NDArray[np.int64]
"""Kind, color and place, `[..., 3]`: positions in `KINDS`, `COLORS` and `PLACES`."""

_NAMED = np.array([(1, 1, 0), (1, 1, 1), (1, 0, 0), (1, 0, 1), (0, 1, 0), (0, 1, 1)], bool)
"""Which of kind, color and place a phrase names."""
_SHARES = (0.4, 0.15, 0.2, 0.05, 0.15, 0.05)
"""How often it does."""


@dataclass(frozen=True)
class Texts:
    """Texts of one phrase or two.

    Attributes:
        phrases: What the phrases name, `[T, 2, 3]`, `ANY` for what they leave open. A second
            phrase that leaves everything open is not there.
    """

    phrases: Things

    def words(self) -> list[str]:
        """Return the texts, such as ``"a red bag at the top left and a blue garment"``."""
        return [" and ".join(_words(*p) for p in text if (p != ANY).any()) for text in self.phrases]

    def true_of(self, things: Things) -> npt.NDArray[np.bool_]:
        """Return which texts are true of which scenes: each phrase, of one of their garments.

        Args:
            things: The garments of N scenes, `[N, G, 3]`.

        Returns:
            `[N, T]`.
        """
        named = self.phrases[None, :, :, None]
        agrees = (named == ANY) | (named == things[:, None, None])
        found: npt.NDArray[np.bool_] = agrees.all(-1).any(-1).all(-1)
        return found


def class_texts() -> Texts:
    """Return a text for every color of every kind, those of one kind together."""
    pairs = product(range(len(KINDS)), range(len(COLORS)))
    return Texts(np.array([[(kind, color, ANY), (ANY,) * 3] for kind, color in pairs]))


def vocabulary() -> list[str]:
    """Return all words of texts, sorted."""
    attributes = product(*(range(ANY, len(names)) for names in (KINDS, COLORS, PLACES)))
    texts = [_words(*named) for named in attributes]
    return sorted({word for text in [*texts, "and"] for word in text.split()})


def draw_texts(things: Things, captions: float, rng: np.random.Generator) -> Texts:
    """Draw a text about the first garment of each of some scenes.

    Args:
        things: Two garments in each of N scenes, `[N, 2, 3]`.
        captions: Share of texts with a phrase for the second garment too, 0 to 1.
        rng: Source of every random choice.

    Returns:
        N texts. Each phrase names the kind, the color or both, and one in four the place.
    """
    named = _NAMED[rng.choice(len(_NAMED), (len(things), 2), p=_SHARES)]
    phrases = np.where(named, things, ANY)
    phrases[rng.random(len(things)) >= captions, 1] = ANY
    return Texts(phrases)


def _words(kind: int, color: int, place: int) -> str:
    noun = "garment" if kind == ANY else KINDS[kind]
    adjective = [] if color == ANY else [COLORS[color]]
    where = [] if place == ANY else ["at the", PLACES[place]]
    return " ".join([*(["a"] if noun != "trousers" else []), *adjective, noun, *where])


CLASS_PROMPTS = tuple(class_texts().words())
"""A prompt for every color of every kind, such as ``"a red bag"``."""
