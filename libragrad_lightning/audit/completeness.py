"""Of which images attributions are added up, and for what.

What is differentiated is as a rule not the logit, on which completeness is measured: that takes a
backward pass of its own. So it is done for some images, the same ones at every audit.
"""

from __future__ import annotations

import math

from libragrad_lightning.attribution import SumsOf, Task
from libragrad_lightning.attribution.rewards import reward_function
from libragrad_lightning.audit.config import AuditConfig
from libragrad_lightning.audit.own_metrics import needs_of
from libragrad_lightning.perturbation import GROUPS

_LEAST, _SHARE = 8, 0.02


def images_added_up(config: AuditConfig) -> int:
    """Return for how many first images of the probe set attributions add up to the logit.

    At least 8, and as many as take 2 % of the passes of an audit, each image one backward pass for
    every rule set. Nothing is timed for it, so that the number is the same on every machine.
    """
    size, rules = config.request.selection().size, len(config.rules)
    if config.completeness_on == "all":
        return size
    left = 2 * sum(1 - level for level in config.levels) if "deletion" in config.needs else 0.0
    without_groups = GROUPS - 1 if "groups" in config.needs else 0
    passes = 1 + rules + rules * (left + without_groups)
    return max(_LEAST, math.ceil(_SHARE * size * passes / rules))


def sums_of(config: AuditConfig, task: Task, is_among_first: bool) -> tuple[SumsOf, ...]:
    """Return what the attributions of images are added up for; nothing that no metric reads.

    For the logit those of all images, if a user's own metric asks for them, or if the logit is what
    is differentiated.

    Args:
        config: What is explained, and measured.
        task: What the scores mean.
        is_among_first: Whether they are among the first `images_added_up`.
    """
    free = reward_function(config.reward, task) is reward_function("logit", task)
    asked = any("logit" in needs_of(metric) for metric in config.own_metrics)
    has_logit = free or asked or is_among_first
    wanted: tuple[SumsOf, ...] = ("reward", "logit") if has_logit else ("reward",)
    return tuple(of for of in wanted if of in config.needs)
