"""Which way metrics of an audit are better."""

from __future__ import annotations

from libragrad_lightning.audit import METRICS

LOWER = frozenset(
    {
        *("lif_aopc", "lif_log_odds_drop", "deletion_auc"),
        *("completeness_error", "relative_completeness_error", "reward_completeness_error"),
        *("degenerate_rate", "mean_absolute_error"),
    }
)
"""Metrics that are better the lower they are."""

NEITHER = frozenset(name for name, entry in METRICS.items() if entry.is_drift)
"""Metrics that say how things are, and not how good."""


def arrow(metric: str) -> str:
    """Return an arrow up if more of a metric is better, down if less is; nothing of others."""
    if metric in LOWER:
        return "↓"
    return "↑" if (metric in METRICS and metric not in NEITHER) or metric == "accuracy" else ""


def has_direction(metric: str) -> bool:
    """Return whether a metric tells good maps from better ones."""
    of_no_map = ("accuracy", "mean_absolute_error", "degenerate_rate")
    return bool(arrow(metric)) and metric not in of_no_map
