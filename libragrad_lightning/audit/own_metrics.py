"""What metrics of a user's own need."""

from __future__ import annotations

from collections.abc import Mapping

from torchmetrics import Metric

_NEEDS: Mapping[str, str] = {
    **dict.fromkeys(("masked_logits", "mif_logits", "lif_logits"), "deletion"),
    **dict.fromkeys(("group_logits", "salience"), "groups"),
    "attribution_total": "logit",
}
"""By the names of what their `update` may ask for, as in `MetricEntry`."""


def needs_of(metric: Metric) -> set[str]:
    """Return what a metric needs beside the maps, by what its `update` asks for."""
    return {need for name, need in _NEEDS.items() if metric._filter_kwargs(**{name: None})}
