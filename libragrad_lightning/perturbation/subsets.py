"""Deletion of random sets of equally many patches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from libragrad_lightning.models import TokenModel, image_generators
from libragrad_lightning.perturbation.checks import check_rows, check_scores
from libragrad_lightning.perturbation.chunks import RowChunks
from libragrad_lightning.perturbation.groups import GroupLogits
from libragrad_lightning.perturbation.operators import Fill, Perturbation, perturbation_operator


@torch.no_grad()
def subset_logits(
    model: TokenModel,
    images: Tensor,
    scores: Mapping[str, Tensor],
    subsets: int = 200,
    share: float = 0.2,
    batch_size: int = 64,
    perturbation: str | Perturbation | Fill = "tokens",
    seed: int = 1,
) -> dict[str, GroupLogits]:
    """Return the logits without random sets of patches, for several maps of the same images.

    An image has its own sets, which its pixels determine, whatever else is in the batch. All maps
    share them, and the forward passes, of which there are as many as sets.

    Args:
        model: The model and its tokens.
        images: `[B, C, H, W]`.
        scores: Named attributions over patches, each `[B, N]` or `[B, h, w]`, signed. What those of
            an image with a NaN add up to is NaN.
        subsets: Number K of sets, at least 2.
        share: Share of the patches in each set; at least one patch, and not all.
        batch_size: Rows of full length per forward pass.
        perturbation: What deletion does, as for `deletion_logits`.
        seed: For other sets of the same images; ties and noise of deletion draw with 0.

    Raises:
        ValueError: If there are too few sets, or these hold no patch or all of them, and as
            `deletion_logits`.
        UnreadableModelError: If tokens are to be left out of a model that does not allow it.

    Source:
        Bhatt et al., Evaluating and Aggregating Feature-based Model Explanations (IJCAI 2020); how
        many sets, and how large, as by default in Xplique.
    """
    check_rows(images, batch_size)
    patches = check_scores(scores, len(images), model.grid(images))
    size = _size(share, patches)
    if subsets < 2:
        raise ValueError(
            f"`subsets` must be at least 2, as one point has no correlation, but is {subsets}."
        )
    operator = perturbation_operator(perturbation, model, images)
    chunks = RowChunks(operator.begin(model, images), batch_size)
    deleted = _drawn(images, subsets, size, patches, seed)
    rows = torch.arange(len(images), device=images.device).repeat_interleave(subsets)
    kept = torch.ones(len(rows), patches, dtype=torch.bool, device=images.device)
    kept.scatter_(1, deleted.flatten(0, 1), False)
    logits = chunks.logits(rows, kept, patches - size, _length(operator, patches - size, patches))
    logits = logits.unflatten(0, (len(images), subsets))
    return {
        name: GroupLogits(logits, _sums(score.flatten(1), deleted), operator.name)
        for name, score in scores.items()
    }


def _size(share: float, patches: int) -> int:
    size = round(share * patches)
    if not 1 <= size < patches:
        raise ValueError(
            f"`share` must let each set hold 1 to {patches - 1} of the {patches} patches but is "
            f"{share}."
        )
    return size


def _length(operator: Perturbation, kept: int, patches: int) -> float:
    return kept / patches if operator.shortens else 1.0


def _drawn(images: Tensor, subsets: int, size: int, patches: int, seed: int) -> Tensor:
    """Return the patches of every set, `[B, K, size]`."""
    drawn = [
        torch.rand(subsets, patches, generator=generator).argsort(dim=1)[:, :size]
        for generator in image_generators(images, seed)
    ]
    return torch.stack(drawn).to(images.device)


def _sums(scores: Tensor, sets: Tensor) -> Tensor:
    """Return what scores `[B, N]` of sets add up to, `[B, K]`.

    Sums of equal values are equal to the last bit, as each has the same terms in the same places.
    """
    found = scores.gather(1, sets.flatten(1)).unflatten(1, sets.shape[1:]).sum(dim=2)
    return found.masked_fill(scores.isnan().any(dim=1)[:, None], float("nan"))
