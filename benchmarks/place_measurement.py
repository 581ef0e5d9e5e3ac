"""Reads and explains one model, and asks whether its tokens lie where they are said to."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from completeness import double_precision
from libragrad_lightning import explain
from libragrad_lightning.backward import LibraGradError
from libragrad_lightning.models import is_out_of_memory, read_token_model
from place_models import PlaceModel, UnbuildableError, place_model
from place_oracle import Oracle

SAME = 1e-12
"""Maps that differ by no more than this, of their largest value, differ by rounding."""


@dataclass(frozen=True)
class PlaceRow:
    """What is known of the places of one model's tokens.

    Attributes:
        name: The key of the model.
        library: The library that it is from.
        verdict: ``"in place"``, ``"MISPLACED"``, ``"refused"``, ``"foreign error"``, ``"too
            costly"`` or ``"not built"``.
        reason: What was seen, or the message.
        levels: Number of levels.
        grid: Rows and columns of the first level.
        prefix: Number of tokens of the first level that are no patches.
        unclear: Levels at which moves are spread out, so that nothing is known.
        alone: Whether every change moved one token of the first level alone.
        residual: The largest Libra residual of a level, relative to the logit.
        batch: How much the map of an image differs alone and with one other image from that with
            two others in its batch, relative to its largest value.
        moved: If that is more than rounding, how much the map alone changes when every pixel moves
            by one unit in the last place.
        unexplained: Why there is no explanation, although tokens were found.
        seconds: Duration of everything.
    """

    name: str
    library: str
    verdict: str = "in place"
    reason: str = ""
    levels: int | None = None
    grid: str = ""
    prefix: int | None = None
    unclear: str = ""
    alone: bool | None = None
    residual: float | None = None
    batch: float | None = None
    moved: float | None = None
    unexplained: str = ""
    seconds: float | None = None


def measure(key: str) -> PlaceRow:
    """Check the model of this key."""
    start = time.perf_counter()
    model = place_model(key)
    row = PlaceRow(key, model.library)
    with double_precision():
        try:
            row = _checked(model, row)
        except UnbuildableError as error:
            row = replace(row, verdict="not built", reason=_line(error))
        except LibraGradError as error:
            row = replace(row, verdict="refused", reason=_line(error))
        except Exception as error:  # the verdict is about just these
            if is_out_of_memory(error):
                raise
            row = replace(row, verdict="foreign error", reason=_foreign(error))
    return replace(row, seconds=round(time.perf_counter() - start, 1))


def _checked(model: PlaceModel, row: PlaceRow) -> PlaceRow:
    module, images = model.built(), model.images(2)
    read = read_token_model(module, images, forward=model.forward(module))
    oracle = Oracle(module, read, images)
    first = oracle.views[0]
    row = replace(
        row,
        levels=len(oracle.views),
        grid=f"{first.grid[0]}x{first.grid[1]}",
        prefix=first.prefix,
    )
    findings = oracle.findings()
    row = replace(row, alone=findings[0].alone)
    wrong = [f"level {level}: {f.wrong}" for level, f in findings.items() if f.wrong]
    unclear = [str(level) for level, f in findings.items() if f.unclear and not f.wrong]
    row = replace(row, reason="; ".join(wrong)[:300], unclear=" ".join(unclear))
    images = model.images(3)
    return _explained(model, module, images, replace(row, verdict="MISPLACED") if wrong else row)


def _explained(model: PlaceModel, module: nn.Module, images: Tensor, row: PlaceRow) -> PlaceRow:
    def explanation(batch: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        given = model.forward(module)
        found = explain(module, batch, target=1, reward="logit", forward=given, progress=False)
        return found.attribution, (found.residuals / found.target_logit).abs().max()

    try:
        maps, residual = explanation(images)
        alone, pair = (explanation(images[:count])[0][:1] for count in (1, 2))
        difference = _difference(torch.cat([alone, pair]), maps[:1])
        if difference > SAME:
            nearby = explanation(images[:1].nextafter(images[:1] + 1))[0]
            row = replace(row, moved=_difference(nearby, alone))
    except LibraGradError as error:
        return replace(row, unexplained=_line(error))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return replace(row, verdict="foreign error", reason=_foreign(error))
    return replace(row, residual=float(residual), batch=difference)


def _difference(maps: Tensor, expected: Tensor) -> float:
    return float((maps - expected).abs().max() / expected.abs().max())


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _foreign(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {_line(error)[:150]} (in {frame.name})"
