"""Attribution methods over what the engine captures of a model."""

from libragrad_lightning.attribution.attention import Attention
from libragrad_lightning.attribution.attention_methods import reads_attention
from libragrad_lightning.attribution.biases import BiasLedger
from libragrad_lightning.attribution.capture import Biases, Captured, capture
from libragrad_lightning.attribution.comparison import Comparison, compare
from libragrad_lightning.attribution.drawing import (
    ExplainedImages,
    explained_captions,
    explanation_figure,
)
from libragrad_lightning.attribution.explain import explain
from libragrad_lightning.attribution.explaining import explain_methods, explain_tokens
from libragrad_lightning.attribution.explanation import Explanation, SumsOf
from libragrad_lightning.attribution.gradient_methods import (
    fullgrad,
    fullgrad_plus,
    input_x_gradient,
)
from libragrad_lightning.attribution.methods import METHODS, Method, attribution_method
from libragrad_lightning.attribution.path_methods import (
    IntegratedGradients,
    SmoothGrad,
    WeightedIntegratedGradients,
)
from libragrad_lightning.attribution.rewards import (
    REWARDS,
    Reward,
    log_odds,
    logit,
    probability,
    reward_function,
    reward_gradient,
)
from libragrad_lightning.attribution.targets import Target, TargetError, target_classes
from libragrad_lightning.attribution.tasks import TASKS, ScoringModule, Task, class_logits, task_of

__all__ = [
    "METHODS",
    "REWARDS",
    "TASKS",
    "Attention",
    "BiasLedger",
    "Biases",
    "Captured",
    "Comparison",
    "ExplainedImages",
    "Explanation",
    "IntegratedGradients",
    "Method",
    "Reward",
    "ScoringModule",
    "SmoothGrad",
    "SumsOf",
    "Target",
    "TargetError",
    "Task",
    "WeightedIntegratedGradients",
    "attribution_method",
    "capture",
    "class_logits",
    "compare",
    "explain",
    "explain_methods",
    "explain_tokens",
    "explained_captions",
    "explanation_figure",
    "fullgrad",
    "fullgrad_plus",
    "input_x_gradient",
    "log_odds",
    "logit",
    "probability",
    "reads_attention",
    "reward_function",
    "reward_gradient",
    "target_classes",
    "task_of",
]
