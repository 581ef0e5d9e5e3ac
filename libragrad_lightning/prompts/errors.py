"""What is wrong with prompts, or with the model that they are for."""

from libragrad_lightning.backward import LibraGradError


class PromptError(LibraGradError, ValueError):
    """Prompts cannot be compared with images; one sentence says why, and what to pass instead."""
