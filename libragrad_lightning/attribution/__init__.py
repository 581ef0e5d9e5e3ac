"""Attribution methods over what the engine captures of a model."""

from libragrad_lightning.attribution.attention_methods import reads_attention
from libragrad_lightning.attribution.capture import Captured
from libragrad_lightning.attribution.comparison import Comparison, compare
from libragrad_lightning.attribution.explain import explain
from libragrad_lightning.attribution.explaining import explain_methods
from libragrad_lightning.attribution.explanation import Explanation, SumsOf
from libragrad_lightning.attribution.gradient_methods import (
    fullgrad,
    fullgrad_plus,
    input_x_gradient,
)
from libragrad_lightning.attribution.methods import METHODS, Method
from libragrad_lightning.attribution.patching_methods import ActivationPatching
from libragrad_lightning.attribution.path_methods import (
    IntegratedGradients,
    SmoothGrad,
    WeightedIntegratedGradients,
)
from libragrad_lightning.attribution.rewards import REWARDS, Reward, log_odds, logit, probability
from libragrad_lightning.attribution.targets import Target, TargetError
from libragrad_lightning.attribution.tasks import Task

__all__ = [
    "METHODS",
    "REWARDS",
    "ActivationPatching",
    "Captured",
    "Comparison",
    "Explanation",
    "IntegratedGradients",
    "Method",
    "Reward",
    "SmoothGrad",
    "SumsOf",
    "Target",
    "TargetError",
    "Task",
    "WeightedIntegratedGradients",
    "compare",
    "explain",
    "explain_methods",
    "fullgrad",
    "fullgrad_plus",
    "input_x_gradient",
    "log_odds",
    "logit",
    "probability",
    "reads_attention",
]
