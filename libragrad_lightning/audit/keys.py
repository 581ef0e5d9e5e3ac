"""What images of a probe set are remembered by."""

from __future__ import annotations

from typing import TypeAlias

Key: TypeAlias = tuple[int, int]
"""The place of an image in the validation loader, and the label that is explained, or -1."""
