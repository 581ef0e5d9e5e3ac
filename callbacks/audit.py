"""`LibraGradAudit`: explains the same validation images at every validation, and measures it.

No `from __future__ import annotations` here: LightningCLI reads the types of the arguments.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from libragrad_lightning.callbacks.arguments import (
    at_least,
    audit_settings,
    one_of,
    positive,
    probe_argument,
)
from libragrad_lightning.callbacks.auditor import Auditor
from libragrad_lightning.callbacks.pictures import PictureSettings
from libragrad_lightning.callbacks.samples import Samples, unpack_batch
from libragrad_lightning.callbacks.schedule import Overhead, Schedule
from libragrad_lightning.callbacks.scheduled import ScheduledAudit
from libragrad_lightning.callbacks.selection import ProbeRequest

from libragrad_lightning.attribution import Method
from libragrad_lightning.backward import RuleSet
from libragrad_lightning.perturbation import LEVELS


class LibraGradAudit(ScheduledAudit):
    r"""Audit the explanations of a vision model during fit, validate and test.

    At every audit the same validation images (the probe set) are explained under each rule set, by
    default with plain gradients and with LibraGrad; the explanations are measured, and drawn. The
    training run is not changed by a bit: the audit never accumulates a gradient, and puts back
    every flag, buffer and random stream. (It restarts CUDA's statistics of peak memory.)

    **Logged metrics** (`<name>/<metric>/<rules>`; `test_<name>/...` in test), by default:

    - ``mif_accuracy_drop``: 1 - accuracy, deleting the most influential patches first; higher is
      better. The paper's "MIF accuracy".
    - ``lif_accuracy``: accuracy, deleting the least influential patches first; higher is better.
    - ``mif_aopc`` (higher is better), ``lif_aopc`` (lower is better): drop of the target's
      probability.
    - ``srg``: accuracy under LIF less accuracy under MIF; higher is better.
    - ``segmentation_ap``: average precision of the map against the object mask, where the batch has
      masks; higher is better. Here and in every other metric beside masks, pixels that the batch
      marks as ``ignore`` do not count.
    - ``energy_inside``: share of the positive attribution that lies in the mask; higher is better.
    - ``completeness_error``: mean \|FullGrad sum - logit\|; ``relative_completeness_error``: the
      same over \|logit\|; lower is better, zero at rounding level under ``libra``.
    - ``drift_cosine``, ``drift_rank``: how far the maps have moved since the audit before: 1 less
      their cosine, or their rank correlation; from the second audit of a fit on.

    And on request (`metrics`): ``drift_ssim`` (1 less the structural similarity of maps of at least
    6 x 6 patches), ``deletion_auc`` (lower is better) and ``insertion_auc`` (higher is better),
    ``mif_log_odds_drop`` (higher is better), ``lif_log_odds_drop`` (lower is better);
    ``segmentation_max_f1``, ``mask_iou``, ``pixel_accuracy``, ``pointing_game`` (against the
    masks, higher is better); ``degenerate_rate`` (share of maps that explain nothing).

    What an audit costs is logged too: ``<name>/seconds``; on CUDA ``<name>/peak_memory_gib``; with
    `max_overhead` ``<name>/samples``, how many images were explained.

    Args:
        every_n_epochs: Audit in epochs 0, n, 2n, ... of a fit; validate and test always audit.
            Monitors see the latest values in between.
        every_n_train_steps: If given, a fit is audited after every n optimizer steps in place of
            its validations, as soon as the first validation (or the sanity check) has shown the
            probe set.
        at_start: Audit before the first optimizer step too, in the sanity check, which has to be
            long enough to show the probe set (`Trainer(num_sanity_val_steps=-1)`). Written to the
            loggers only.
        at_end: Audit the weights that the fit leaves behind, unless they are those of the last
            audit. Written to the loggers only.
        max_overhead: Largest share of an epoch's other time that its audits may take, such as 0.05;
            after an epoch in which they took more, fewer images are explained. No limit by default.
        max_samples: Size of the probe set, over all processes together.
        probe: Which images of the validation loader are in the probe set: the ``first`` ones;
            ``stratified``, the first of every class, then the second of every class, and so on; or
            a list of places in the loader, from 0.
        rules: Rule sets to compare, by name (``plain``, ``libra``, ``attn_lrp``, ``ali_lrp``,
            ``decompx``) or as objects.
        method: Attribution method, by name (``fullgrad_plus``, ``fullgrad``, ``genatt``,
            ``input_x_gradient``, ... all in `attribution.METHODS`) or a function.
        target: Which class is explained, and scored under deletion: ``predicted``, ``label``, or a
            class index. A head with one logit is taken as that of a sigmoid: its classes are 0,
            whose logit is the negative one, and 1.
        reward: What is differentiated: ``log_odds``, ``probability`` or ``logit``. The first two
            rank patches alike; ``probability`` underflows when the model is certain.
        metrics: Names of the metrics to compute; the default ones above if omitted.
        levels: Fractions of patches to delete.
        perturbation: What deletion does to patches: ``tokens`` (leave them out where the model
            allows it, else zero them), ``drop_tokens``, ``zero_tokens``, ``pixels_zero``,
            ``pixels_mean``, ``pixels_blur`` or ``pixels_noise``.
        batch_size: Images per explanation. If memory runs out, half as many are tried.
        precision: In which precision half-precision weights (``bf16-true``, ``16-true``) are
            explained: ``float32``, in copies, or ``module``, as they are. Others are explained as
            they are, without autocast.
        backbone: Path of the token backbone in the LightningModule, such as ``model.backbone``;
            found if omitted.
        blocks: Paths of its blocks in the LightningModule, in order; found if omitted.
        unpack: Function from your validation batch to `Samples`; by default tuples and dicts are
            understood.
        dataloader_idx: Which validation loader the probe set comes from.
        num_images: How many probe images are drawn at every audit.
        image_size: The longer side of one picture in a panel, in pixels.
        image_mean: Channel means of the images' normalisation, to undo it in pictures. Without it
            and `image_std`, those of the datamodule are taken (its attributes of these names); if
            it has none, images are shown as they are, or stretched to [0, 1] if they are outside
            of it.
        image_std: Channel standard deviations of the images' normalisation.
        class_names: Class names for captions; by default `class_names` of the datamodule or module.
        unknown: What to do when the model has an operation without a gradient rule: ``error``,
            ``warn`` or ``ignore``.
        on_error: What to do when an audit fails: ``raise``, or ``warn`` and let training go on.
            Running out of memory never ends a run.
        name: First part of the log keys; change it to use several audits in one Trainer.
        print_summary: Print a table of all audits at the end of a fit, validate or test.

    Raises:
        MisconfigurationException: If an argument cannot work, the Trainer has no validation, comes
            from another package or shards the model.

    Example:
        >>> from libragrad_lightning.callbacks import LibraGradAudit
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[LibraGradAudit()], logger=False, max_epochs=1)
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        every_n_train_steps: int | None = None,
        at_start: bool = False,
        at_end: bool = False,
        max_overhead: float | None = None,
        max_samples: int = 64,
        probe: Literal["first", "stratified"] | Sequence[int] = "first",
        rules: Sequence[str | RuleSet] = ("plain", "libra"),
        method: str | Method = "fullgrad_plus",
        target: Literal["predicted", "label"] | int = "predicted",
        reward: str = "log_odds",
        metrics: Sequence[str] | None = None,
        levels: Sequence[float] = LEVELS,
        perturbation: str = "tokens",
        batch_size: int = 32,
        precision: Literal["float32", "module"] = "float32",
        backbone: str | None = None,
        blocks: Sequence[str] | None = None,
        unpack: Callable[[Any], Samples] | None = None,
        dataloader_idx: int = 0,
        num_images: int = 8,
        image_size: int = 224,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
        unknown: Literal["error", "warn", "ignore"] = "error",
        on_error: Literal["raise", "warn"] = "raise",
        name: str = "audit",
        print_summary: bool = True,
    ) -> None:
        settings = audit_settings(
            rules=rules,
            method=method,
            target=target,
            reward=reward,
            metrics=metrics,
            levels=levels,
            perturbation=perturbation,
            batch_size=batch_size,
            unknown=unknown,
            backbone=backbone,
            blocks=blocks,
            precision=precision,
        )
        pictures = PictureSettings(
            count=at_least(0, num_images, "num_images"),
            size=at_least(32, image_size, "image_size"),
            mean=None if image_mean is None else tuple(image_mean),
            std=None if image_std is None else tuple(image_std),
            class_names=None if class_names is None else tuple(class_names),
        )
        one_of(("raise", "warn"), on_error, "on_error")
        overhead = Overhead(positive(max_overhead, "max_overhead"))
        auditor = Auditor(settings, pictures, unpack or unpack_batch, overhead, on_error, name)
        schedule = Schedule(
            at_least(1, every_n_epochs, "every_n_epochs"),
            None
            if every_n_train_steps is None
            else at_least(1, every_n_train_steps, "every_n_train_steps"),
            at_start,
            at_end,
        )
        request = ProbeRequest(
            probe_argument(probe),
            at_least(1, max_samples, "max_samples"),
            at_least(0, dataloader_idx, "dataloader_idx"),
        )
        super().__init__(auditor, schedule, request, print_summary)
