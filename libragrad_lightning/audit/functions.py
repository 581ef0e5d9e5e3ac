"""Functions of torch that tell, by what they are given, which tensor holds scores, and of what."""

from __future__ import annotations

OF_CLASSES = frozenset(
    "cross_entropy nll_loss nll_loss_nd multi_margin_loss softmax log_softmax argmax topk".split()
)
"""Functions of scores of classes that exclude each other."""
OF_LABELS = frozenset(
    "binary_cross_entropy binary_cross_entropy_with_logits multilabel_soft_margin_loss "
    "soft_margin_loss sigmoid log_sigmoid".split()
)
"""Functions of scores that say yes or no each."""
OF_QUANTITIES = frozenset(
    "mse_loss l1_loss smooth_l1_loss huber_loss gaussian_nll_loss poisson_nll_loss".split()
)
"""Functions of outputs that are quantities."""

_READINGS = frozenset("softmax log_softmax argmax topk sigmoid log_sigmoid".split())

LOSSES = ((OF_CLASSES | OF_LABELS | OF_QUANTITIES) - _READINGS) | frozenset(["kl_div"])
"""Losses whose first argument are scores, and the second labels."""
READINGS = _READINGS | frozenset(
    "logsumexp max argsort gt ge lt le round __gt__ __ge__ __lt__ __le__".split()
)
"""Functions that read scores: what the classes are, or how certain."""
CLASS_READINGS = (_READINGS - {"topk"}) | {"logsumexp"}
"""Those that can hardly be given anything else; `topk` finds neighbors too."""
SIMILARITIES = frozenset(
    "normalize matmul __matmul__ mm bmm addmm cdist pairwise_distance cosine_similarity "
    "triplet_margin_loss triplet_margin_with_distance_loss cosine_embedding_loss".split()
)
"""Functions that compare embeddings."""
