"""In-place operations on views, such as ``x[:, 1:] += y``.

Autograd records them as a node that hides the operation proper; whether it is affine can be seen
from its derivative.
"""

from __future__ import annotations

import torch

from libragrad_lightning.backward.operations import Node


def is_affine_write(node: Node) -> bool:
    """Return whether a hidden in-place operation overwrites a view or adds to it.

    Then every element of the base is kept or dropped, so that its derivative is 1 or 0 (as for
    additions, copies, and selections such as relu). A product, a power or an activation scales it
    by something else.
    """
    metadata = node._input_metadata[0]
    if metadata.device.type == "meta":
        return True
    if len(node.next_functions) > 2:
        return False
    ones = torch.ones(metadata.shape, dtype=metadata.dtype, device=metadata.device)
    of_base = node(ones)
    of_base = of_base[0] if isinstance(of_base, tuple) else of_base
    return of_base is None or bool(((of_base == 0) | (of_base == 1)).all())
