"""Finds blocks in one recorded forward pass, by counting paths.

A *block* is a module inside which paths part and meet again (a residual connection, a gate,
parallel branches), and whose input and output carry everything that the logits know of the image.
Where the residual stream runs outside of such modules, or one of them holds several blocks, blocks
begin at tensors of the stream itself: at each branch that mixes tokens behind one that does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from libragrad_lightning.backward.graph import Edge
from libragrad_lightning.models.calls import Call, Feature
from libragrad_lightning.models.containers import has_weights, innermost_that_matter, is_composed
from libragrad_lightning.models.feature_view import Axes, possible_axes
from libragrad_lightning.models.levels import Point
from libragrad_lightning.models.noise import noise_like
from libragrad_lightning.models.paths import PathCounts
from libragrad_lightning.models.refusals import unless_refused

_BRANCHES_OF_A_BLOCK = 2
"""A module with more residual branches on its stream may hold several blocks."""


@dataclass(frozen=True)
class Block:
    """A block in one pass.

    Attributes:
        call: The call of a module that receives its input.
        end: Where its output is.
        leaves: Its output, as it was then.
        mid_residual: The call that receives the features after its first residual connection.
        rule: How it was found.
    """

    call: Call
    end: Point
    leaves: Feature
    mid_residual: Call | None = None
    rule: str = "block"


def entry_point(call: Call) -> Point:
    """Return the point where a call receives its first differentiable tensor."""
    return Point(call.module, call.argument, call.number)


class BlockFinder:
    """The calls of one forward pass, and what the graph says about them.

    Args:
        inside: The module in which blocks are looked for.
        calls: The calls of all modules, in the order in which they return.
        logits: What came out.
        pixels: What went in.

    Attributes:
        uneven: The first blocks of passes that carry everything together, but are not built alike.
    """

    def __init__(
        self, inside: nn.Module, calls: Sequence[Call], logits: Tensor, pixels: Tensor
    ) -> None:
        modules = set(inside.modules())
        self.uneven: tuple[Call, ...] = ()
        self._batch = len(pixels)
        self._paths = PathCounts(logits, pixels)
        self._all_calls = calls
        self._calls = [call for call in calls if call.module in modules]

    def passes(self) -> list[list[Block]]:
        """Return the blocks of every pass over the images, in order; empty if there are none."""
        everything = self._blocks(self._calls)
        return [everything] if everything else self._several_passes()

    def of_modules(self, named: Sequence[Call]) -> list[Block]:
        """Return the blocks of calls that the user named."""
        return [self._of_call(c, "named") for c in named]

    def entry(self, block: Block) -> Call:
        """Return the call where the tokens z0 enter: the first block, or a norm right before it.

        Or a dropout, if it is a sibling of the blocks. A model that rearranges its tokens does so
        before z0.
        """
        current = block.call
        for call in reversed(self._all_calls):
            parent = call.path.rpartition(".")[0]
            sibling = not parent or f"{block.call.path}.".startswith(f"{parent}.")
            if (
                call.returned.edge == current.received.edge
                and sibling
                and call.received.shape == current.received.shape
                and self._carries(call)
            ):
                current = call
        return current

    def is_whole(self, call: Call) -> bool:
        """Return whether all that a call receives goes on through what it returns."""
        return self._share(call.received.edge) == self._share(call.returned.edge)

    def carries_features(self, call: Call) -> bool:
        """Return whether a call receives features that carry all of a pass."""
        share = self._share(call.received.edge)
        return share == self._paths.total > 0 and bool(self._axes(call))

    def _blocks(self, calls: Sequence[Call]) -> list[Block]:
        carrying = [call for call in calls if self._carries(call)]
        stages = [c for c in carrying if self._branches(c) and is_composed(c.module)]
        chosen = innermost_that_matter(stages)
        if chosen:
            return [block for call in chosen for block in self._divided(call)]
        stream = self._stream_blocks(calls)
        if stream:
            return stream
        # Without any branches, the layers with weights are what there is.
        layers = innermost_that_matter([c for c in carrying if has_weights(c.module)])
        return [replace(self._of_call(call), rule="layer") for call in layers]

    def _several_passes(self) -> list[list[Block]]:
        """Return the blocks of passes that together carry everything.

        Such are those of test-time flips and ensembles. Empty unless they are built alike.
        """
        stages = [c for c in self._calls if self._carries(c, part=True) and self._branches(c)]
        calls = innermost_that_matter([c for c in stages if is_composed(c.module)])
        if not calls:
            return []
        ends = [call.returned.edge for call in calls]
        behind = self._paths.origins(ends, [call.received.edge for call in calls])
        chains: list[list[int]] = []
        for i, origins in enumerate(behind):
            own = next((chain for chain in chains if origins >> chain[-1] & 1), None)
            if own is None:
                chains.append([i])
            else:
                own.append(i)
        passes = [[calls[i] for i in chain] for chain in chains]
        whole = sum(self._share(chain[0].received.edge) for chain in passes)
        shapes = {tuple(c.received.shape for c in chain) for chain in passes}
        if len(passes) < 2 or whole != self._paths.total:
            return []
        if len(shapes) > 1:
            self.uneven = tuple(chain[0] for chain in passes)
            return []
        return [[replace(self._of_call(c), rule="pass") for c in chain] for chain in passes]

    def _of_call(self, call: Call, rule: str = "block") -> Block:
        end = Point(call.module, None, call.number)
        mid_residual = next((c for c in self._calls if self._is_mid_residual(c, call)), None)
        return Block(call, end, call.returned, mid_residual, rule)

    def _is_mid_residual(self, call: Call, block: Call) -> bool:
        outside = (block.received.edge, block.returned.edge)
        return (
            block.contains(call)
            and call.received.edge not in outside
            and call.received.shape == block.received.shape
            and self._share(call.received.edge) == self._share(block.received.edge)
            and not call.received.overwritten
        )

    def _divided(self, block: Call) -> list[Block]:
        """Return the blocks in a module: itself, or those that begin on the stream inside of it."""
        inner = [c for c in self._calls if block.contains(c)]
        stream = self._stream([block, *inner])
        if sum(self._branching(stream)) <= _BRANCHES_OF_A_BLOCK:
            return [self._of_call(block)]
        end = Point(block.module, None, block.number)
        found = self._sections(stream, end, block.returned, inside=True)
        return found if len(found) > 1 else [self._of_call(block)]

    def _stream_blocks(self, calls: Sequence[Call]) -> list[Block]:
        """Return the blocks of a model whose residual stream runs outside of modules."""
        stream = self._stream(calls)
        last = stream[-1] if stream else None
        if last is None or not any(self._branching(stream)):
            return []
        return self._sections(stream, entry_point(last), last.received)

    def _stream(self, calls: Sequence[Call]) -> list[Call]:
        """Return for every tensor of the stream the outermost call that receives it, in order."""
        by_edge = {c.received.edge: c for c in calls if self._carries_in(c)}
        return sorted(by_edge.values(), key=lambda c: self._paths.position(c.received.edge))

    def _branching(self, stream: Sequence[Call]) -> list[bool]:
        pairs = pairwise(stream)
        return [self._paths.branches_between(a.received.edge, b.received.edge) for a, b in pairs]

    def _sections(
        self, stream: Sequence[Call], end: Point, leaves: Feature, inside: bool = False
    ) -> list[Block]:
        """Return blocks that begin at branches which mix tokens behind others that do not."""
        branches = list(self._branches_of(stream, leaves.edge))
        behind = next((c for c in stream if c.received.edge == branches[-1][1]), None)
        if behind is not None:  # such as a last norm, which is no part of a block
            end, leaves = entry_point(behind), behind.received
        # Some graphs, as those of reentrant checkpoints, give no gradients of inner tensors.
        mixing = [
            unless_refused(partial(self._mixes, first, second)) is not False
            for first, second, _ in branches
        ]
        starts = [0] + [i for i in range(1, len(branches)) if mixing[i] and not mixing[i - 1]]
        if all(mixing) and not inside:
            starts = list(range(len(branches)))
        found = []
        for i, start in enumerate(starts):
            after = starts[i + 1] if i + 1 < len(starts) else len(branches)
            call = branches[start][2]
            mid_residual = branches[start + 1][2] if after > start + 1 else None
            if after < len(branches):
                following = branches[after][2]
                point, output = entry_point(following), following.received
            else:
                point, output = end, leaves
            found.append(Block(call, point, output, mid_residual, "stream"))
        return found

    def _branches_of(
        self, stream: Sequence[Call], leaves: Edge
    ) -> Iterator[tuple[Edge, Edge, Call]]:
        """Give where every residual branch of the stream begins and ends, and who receives it."""
        ends = [*(call.received.edge for call in stream[1:]), leaves]
        for call, end in zip(stream, ends, strict=True):
            if end != call.received.edge and self._paths.branches_between(call.received.edge, end):
                yield call.received.edge, end, call

    def _mixes(self, first: Edge, second: Edge) -> bool:
        """Whether a token at one tensor of the stream depends on other tokens at one before it."""
        shape = second[0]._input_metadata[second[1]].shape
        axes = possible_axes(shape, self._batch)
        if not axes or shape != first[0]._input_metadata[first[1]].shape:
            return True
        # Feature maps may have their channels on either side; a 1x1 convolution mixes neither.
        return all(self._mixes_along(first, second, a, shape) for a in axes)

    def _mixes_along(self, first: Edge, second: Edge, axes: Axes, shape: Sequence[int]) -> bool:
        metadata = second[0]._input_metadata[second[1]]
        values = torch.empty(tuple(shape), dtype=metadata.dtype, device=metadata.device)
        weights = noise_like(values)
        chosen = axes.sequence(weights)
        chosen[:, ::2] = 0  # every other token, so that causal ones are seen too
        (gradient,) = torch.autograd.grad(
            [GradientEdge(*second)], [GradientEdge(*first)], [weights], retain_graph=True
        )
        return bool(axes.sequence(gradient)[:, ::2].any())

    def _share(self, edge: Edge) -> int:
        return self._paths.through(edge)

    def _axes(self, call: Call) -> list[Axes]:
        """Return the possible axes of what a call receives; none of pixels, padded or not."""
        is_feature = self._paths.is_computed(call.received.edge)
        return possible_axes(call.received.shape, self._batch) if is_feature else []

    def _carries_in(self, call: Call) -> bool:
        return self.carries_features(call) and not call.received.overwritten

    def _carries(self, call: Call, part: bool = False) -> bool:
        """Whether all that flows, or a part of it, goes into and out of a call."""
        share = self._share(call.received.edge)
        return (
            (0 < share < self._paths.total if part else share == self._paths.total > 0)
            and self._share(call.returned.edge) == share
            and bool(self._axes(call))
            and bool(possible_axes(call.returned.shape, self._batch))
            and not call.received.overwritten
        )

    def _branches(self, call: Call) -> bool:
        return self._paths.branches_between(call.received.edge, call.returned.edge)
