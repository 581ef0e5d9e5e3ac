"""What an in-place operation on a view, such as ``x[:, 1:] += y``, is: linear, or unknown.

Autograd records it as a node that hides the operation proper. Whether it is affine can be seen from
its derivative, unless it is a clamp or a leaky relu; whether it is one of those must be noted while
it happens.
"""

from __future__ import annotations

import torch

from libragrad_lightning.backward.graph import Node

_IS_LINEAR = "libragrad_lightning.is_linear"


def note_linear(node: Node, is_linear: bool) -> None:
    """Note whether the operation that a node hides is linear."""
    node.metadata[_IS_LINEAR] = is_linear


def is_affine_write(node: Node) -> bool:
    """Return whether a hidden in-place operation overwrites a view or adds to it.

    Then every element of the base is kept or dropped, so that its derivative is 1 or 0 (as for
    additions, copies, and selections such as relu). A product, a power or an activation scales it
    by something else; a clamp or a leaky relu must have been noted to be told apart.
    """
    metadata = node._input_metadata[0]
    noted: bool | None = node.metadata.get(_IS_LINEAR)
    if noted:
        return True
    if metadata.device.type == "meta":
        return True
    if len(node.next_functions) > 2 or noted is False:
        return False
    ones = torch.ones(metadata.shape, dtype=metadata.dtype, device=metadata.device)
    of_base = node(ones)
    of_base = of_base[0] if isinstance(of_base, tuple) else of_base
    return of_base is None or bool(((of_base == 0) | (of_base == 1)).all())
