"""The figure of the study: ROC, and quality over the steps of trainings."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alarm_detection import roc
from alarm_results import Sign, Study, history

COLORS = {"mark": "C3", "color": "C1", "background": "C0", "texture": "C2"}
STYLES = {"libra": "-", "plain": "--"}
TITLES = {"libra": "LibraGrad", "plain": "Plain gradients"}


def figure(of: Study, signs: tuple[Sign, Sign], metric: str, file: Path) -> None:
    """Draw the ROC of both signs, and the quality of every training, with both gradients.

    Args:
        of: The trainings.
        signs: The signs.
        metric: The quality, such as ``energy_inside``.
        file: Where the picture goes.
    """
    drawn = Figure(figsize=(10, 6.5), layout="constrained")
    axes = drawn.subplots(2, 2)
    for ax, sign in zip(axes[0], signs, strict=True):
        _roc(ax, of, sign, metric)
    for ax, rules in zip(axes[1], STYLES, strict=True):
        _curves(ax, of, f"{metric}/{rules}")
        ax.set_title(TITLES[rules])
    handles, labels = axes[1, 0].get_legend_handles_labels()
    axes[1, 1].legend(handles, labels, fontsize=8, loc="upper right")
    drawn.savefig(file, dpi=100)


def _roc(ax: Axes, of: Study, sign: Sign, metric: str) -> None:
    for rules, style in STYLES.items():
        planted, clean = of.scores(sign, f"{metric}/{rules}")
        false, true = roc(planted, clean)
        (line,) = ax.plot(false, true, style, label=TITLES[rules], clip_on=False)
        at = [(scores >= sign.threshold).mean() for scores in (clean, planted)]
        ax.plot(*at, "o", color=line.get_color(), clip_on=False)
    ax.plot([0, 1], [0, 1], ":", color="gray")
    ax.set(title=f"Sign: {sign.name}", xlabel="false alarm rate", ylabel="true alarm rate")
    ax.legend(fontsize=8, loc="lower right")


def _curves(ax: Axes, of: Study, quality: str) -> None:
    for outcome in (*of.clean, *of.planted):
        training = outcome.training
        name = training.shortcut if training.is_planted else "none"
        known = name in ax.get_legend_handles_labels()[1]
        seen = history(outcome, quality)
        ax.plot(
            [audit.step for audit in seen],
            [audit.quality for audit in seen],
            color=COLORS[name] if training.is_planted else "0.7",
            label=None if known else name,
            linewidth=1,
        )
    ax.set(xlabel="optimizer steps", ylabel=quality.partition("/")[0], ylim=(0, 1))
