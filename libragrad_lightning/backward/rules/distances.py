"""Distances between two sets of points, which are homogeneous of degree 1 in both together.

By Euler's theorem the ordinary gradients of ||x - c|| add up to the distance. Where the points c
are constants of the explanation, such as a codebook, what they add is a bias.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from libragrad_lightning.backward.graph import ConstantOf, Node


def is_distance(node: Node) -> bool:
    """Return whether a `torch.cdist` measures; with p = 0 it counts differing coordinates."""
    return bool(_exponent(node) > 0)


def constant_points(node: Node, constant_of: ConstantOf) -> Tensor | None:
    """Return what constant points add to the distances: <c, d||x - c|| / dc>."""
    edges = [child for child, _ in node.next_functions]
    constant = [i for i in (0, 1) if edges[i] is None or constant_of(i) is not None]
    if len(constant) != 1:
        return None
    first, second = node._saved_x1, node._saved_x2
    difference = first[..., :, None, :] - second[..., None, :, :]
    points = -second[..., None, :, :] if constant == [1] else first[..., :, None, :]
    return (points * _slopes(difference, _exponent(node))).sum(-1).detach()


def _exponent(node: Node) -> float:
    return float(getattr(node, "_saved_p", 2.0))


def _slopes(difference: Tensor, p: float) -> Tensor:
    """Return the gradient of the p-norm over the last axis; zero where points coincide."""
    size = difference.abs()
    norm = torch.linalg.vector_norm(difference, p, -1, keepdim=True)
    if math.isinf(p):
        return difference.sign() * (size == norm)
    ratio = size / norm.masked_fill(norm == 0, 1)
    powers = torch.where(size > 0, ratio ** (p - 1), 0.0)
    return difference.sign() * powers
