"""Attribution methods that are used for models of images and texts today."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.attribution.attention_methods import reads_attention
from libragrad_lightning.attribution.capture import Captured
from libragrad_lightning.backward import LibraGradError


@reads_attention
def legrad(captured: Captured) -> Tensor:
    """LeGrad: mean over blocks, heads and queries of ReLU(d s_l / d A_l) (Bousselham et al. 2024).

    s_l is the reward of the mean of all tokens that block l returns, normalized and read out as
    the model does it. Of a model that reads its tokens by an attention pool, A is that of the
    pool, of its first query, and s_l the reward of what block l returns, pooled.

    Not linear in the gradient.

    Raises:
        LibraGradError: If blocks return tokens of different widths.
    """
    outputs = _outputs(captured)
    count = outputs[-1].shape[1]
    means = torch.cat([output.mean(1, keepdim=True).expand(-1, count, -1) for output in outputs])
    gradient, pooling = captured.passes.gradient_behind(means)
    if pooling:
        return _pooled_legrad(captured, outputs)
    maps = []
    for level, of_mean in enumerate(gradient.sum(1, keepdim=True).chunk(len(outputs))):
        length = outputs[level].shape[1]
        attention = captured.passes.attention_of(level, (of_mean / length).expand(-1, length, -1))
        maps.append(captured.on_first_level(level, attention.gradients.relu().mean((1, 2))))
    return torch.stack(maps).mean(0)


@reads_attention
def grad_eclip(captured: Captured) -> Tensor:
    """Grad-ECLIP: ReLU(sum_c w_c lambda_i v_ic) at the last block (Zhao et al. 2024).

    w is the gradient of what attention returns for the class token, v_i the value of token i, and
    lambda_i the cosine of the class token's query to its key over all heads, from 0 to 1 over the
    patches. sum_c w_c v_ic is the class token's row of dA, summed over heads. Where the head reads
    other tokens than the class token, their rows are added; else these are zero.

    Raises:
        LibraGradError: If query and key are not to be seen.
    """
    last = len(captured.features) - 1
    if captured.queries is None:
        raise LibraGradError(
            "Grad-ECLIP compares queries and keys of the last block, but its attention is no "
            "softmax of their products; choose another `method`, such as 'fullgrad_plus'."
        )
    queries, keys = (_joined_heads(t) for t in (captured.queries.queries, captured.queries.keys))
    cosines = F.normalize(queries, dim=-1) @ F.normalize(keys, dim=-1).mT
    patches = cosines[..., captured.views[last].prefix :]
    low, high = patches.amin(-1, keepdim=True), patches.amax(-1, keepdim=True)
    loosened = ((cosines - low) / (high - low).clamp_min(torch.finfo(low.dtype).tiny)).clamp(0, 1)
    of_values = captured.attention[last].gradients.sum(1)
    return captured.on_first_level(last, (loosened * of_values).sum(1).relu())


def maskclip(captured: Captured) -> Tensor:
    """MaskCLIP: the reward of every token that attends to itself alone in the last block.

    So dense similarities to a text are had without training (Zhou et al. 2022). Uses no gradients.

    Raises:
        LibraGradError: If the last block does not take tokens one by one.
    """
    last = len(captured.features) - 1
    return captured.on_first_level(last, captured.passes.rewards_alone(captured.features[last]))


def _joined_heads(parts: Tensor) -> Tensor:
    """Return `[B, heads, T, d]` as `[B, T, heads * d]`."""
    return parts.transpose(1, 2).flatten(2)


def _outputs(captured: Captured) -> list[Tensor]:
    """Return what every block returned, `[B, T, D]` each."""
    outputs = [*captured.features[1:], captured.views[-1].tokens(captured.output)]
    widths = list(dict.fromkeys(output.shape[-1] for output in outputs))
    if len(widths) > 1:
        raise LibraGradError(
            f"LeGrad reads out what every block returns, but tokens change in width ({widths}); "
            "choose another `method`, such as 'fullgrad_plus'."
        )
    return outputs


def _pooled_legrad(captured: Captured, outputs: list[Tensor]) -> Tensor:
    """LeGrad of a model whose head is an attention pool."""
    _, pooling = captured.passes.gradient_behind(torch.cat(outputs))
    of_first = pooling[0].gradients[:, :, 0].relu().mean(1)
    maps = of_first.chunk(len(outputs))
    return torch.stack([captured.on_first_level(len(outputs) - 1, each) for each in maps]).mean(0)
