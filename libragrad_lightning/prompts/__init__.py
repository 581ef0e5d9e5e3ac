"""Images and texts: which region a text names, and which words an image answers to."""

from libragrad_lightning.prompts.errors import PromptError
from libragrad_lightning.prompts.figure import PAPER_COLUMNS, Column, prompt_figure
from libragrad_lightning.prompts.text_prompts import TextPrompts, text_prompts
from libragrad_lightning.prompts.words import WordExplanation, explain_words

__all__ = [
    "PAPER_COLUMNS",
    "Column",
    "PromptError",
    "TextPrompts",
    "WordExplanation",
    "explain_words",
    "prompt_figure",
    "text_prompts",
]
