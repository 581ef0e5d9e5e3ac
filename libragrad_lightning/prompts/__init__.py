"""Images and texts: which region a text names, and which words an image answers to."""

from libragrad_lightning.prompts.errors import PromptError
from libragrad_lightning.prompts.text_prompts import TextPrompts, text_prompts
from libragrad_lightning.prompts.words import WordExplanation, explain_words

__all__ = ["PromptError", "TextPrompts", "WordExplanation", "explain_words", "text_prompts"]
