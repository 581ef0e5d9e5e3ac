"""What the user should know of an audit's values: what is missing, and what is odd about them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from libragrad_lightning.attribution import Task
from libragrad_lightning.audit import (
    AuditConfig,
    AuditResult,
    Key,
    changed_settings,
    reasons_for_missing,
)
from libragrad_lightning.monitoring.notices import Notices

_LARGEST_ERROR = 0.01
"""The largest relative completeness error of LibraGrad that passes without a word."""


def resumes_something_else(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return whether the audits of a checkpoint had other settings, and say so.

    Args:
        before: Their settings.
        now: The settings now.
    """
    changed = changed_settings(before, now)
    if changed:
        rank_zero_warn(
            f"LibraGradAudit was resumed with other settings: {', '.join(changed)}; its "
            "history and drift begin anew, and its curves do not go on."
        )
    return bool(changed)


class Remarks:
    """Says what is odd about audits, each thing once.

    Args:
        config: What was asked for.
        notices: Where to say it.
    """

    def __init__(self, config: AuditConfig, notices: Notices) -> None:
        self._config, self._notices = config, notices

    def say_what_is_missing(
        self, result: AuditResult, measured: Mapping[str, float], task: Task
    ) -> None:
        """Say which images and metrics have no values, and whether attributions add up.

        Args:
            result: What was found, over all processes.
            measured: The values of the metrics, NaN where nothing was measured.
            task: What the scores mean.
        """
        found = result.explained
        if result.nonfinite:
            self._notices.warn(
                f"LibraGradAudit leaves out {result.nonfinite} of {found} images, whose scores are "
                "not finite; the model may have diverged.",
                about="nonfinite",
            )
        blank = {name: n for name, n in result.uninformative.items() if n > result.nonfinite}
        if blank:
            counts = ", ".join(f"{n} of {found} under {name}" for name, n in blank.items())
            self._notices.warn(
                f"LibraGradAudit does not score maps that are the same everywhere ({counts}), "
                "since they rank no patch above another; `degenerate_rate` counts them. If all "
                "are, the scores may end in a function without a gradient: pass `forward`, a "
                "function `(module, images) -> scores`, that returns the scores before it.",
                about="blank",
            )
        error = measured.get("relative_completeness_error/libra", 0.0)
        if error > _LARGEST_ERROR:
            self._notices.warn(
                f"The attributions of LibraGrad do not add up to the scores (relative error "
                f"{error:.2g}), so something in the model is not accounted for; "
                "`diagnosis.explain_incompleteness` finds out where.",
                about="incomplete",
            )
        reasons = reasons_for_missing(self._config.metrics, measured, task)
        for reason in dict.fromkeys(reasons.values()):
            names = ", ".join(f"`{name}`" for name, why in reasons.items() if why == reason)
            say = self._notices.warn if self._config.asked else self._notices.info
            say(f"LibraGradAudit has no value for {names}, which {reason}.")

    def say_what_changed(self, result: AuditResult, changed: Collection[Key]) -> None:
        """Say that images are others than before.

        Args:
            result: What was found, over all processes.
            changed: The images that are others.
        """
        if changed:
            self._notices.warn(
                f"LibraGradAudit found other images than before in {len(changed)} of "
                f"{len(result.fingerprints)} places of the validation loader, so that its curves "
                "do not go on; pass a loader with `shuffle=False`.",
                about="changed",
            )

    def say_what_is_not_there(self, result: AuditResult) -> None:
        """Say that images that were named are not there.

        Args:
            result: What was found, over all processes.
        """
        request = self._config.request
        named, limit = request.probe, result.samples + result.nonfinite
        if isinstance(named, tuple) and limit < len(named):
            self._notices.warn(
                f"LibraGradAudit found {limit} of the {len(named)} images that `probe` names; name "
                "places in the validation loader, after `limit_val_batches`.",
                about="missing images",
            )
