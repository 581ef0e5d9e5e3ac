"""`LibraGradAudit`: the one line to add to a Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torchmetrics import Metric

from libragrad_lightning.attribution import Method
from libragrad_lightning.audit import (
    AuditError,
    Deletion,
    ForwardFunction,
    Source,
    UnpackBatch,
    at_least,
    audit_config,
    grouped,
    one_of,
    probe_request,
)
from libragrad_lightning.backward import RuleSet
from libragrad_lightning.monitoring import AuditHooks, AuditSession, Schedule
from libragrad_lightning.reporting import Pictures


class LibraGradAudit(AuditHooks):
    """Audit the explanations of a vision model during fit, validate and test.

    At every audit the same validation images (the probe set) are explained under each rule set, by
    default with plain gradients and with LibraGrad; the explanations are measured, logged as
    ``<name>/<metric>/<rules>`` (``test_<name>/...`` in test), and drawn. What is explained is what
    the validation step computed: the call in which a module turned images into scores, with the
    images that it received. The training run stays bit-identical.

    Args:
        max_samples: Size of the probe set, over all processes together. A fit keeps its images; in
            `validate` and `test` they are explained as they come, so that it may be all there are.
        probe: Which images are in it: the ``first`` ones; ``stratified``, the first of every class,
            then the second of every class, and so on; or a list of places in the loader, from 0.
        rules: Rule sets to compare, by name (``plain``, ``libra``, ``attn_lrp``, ``ali_lrp``,
            ``decompx``) or as objects.
        method: Attribution method, by name (``fullgrad_plus``, ``genatt``, ``input_x_gradient``,
            ... all in `attribution.METHODS`) or a function.
        target: What is explained, and scored under deletion: the ``predicted`` class, the
            ``label`` (of several labels each one), or the index of a class or output.
        task: What the scores mean, if losses and labels do not tell: ``multiclass``, ``binary``,
            ``multilabel`` or ``regression``.
        reward: What is differentiated: ``log_odds``, ``probability`` or ``logit``. The first two
            rank patches alike; ``probability`` underflows when the model is certain.
        metrics: What is measured, names from `audit.METRICS` or torchmetrics of your own, whose
            `update` is given what it names of ``attribution``, ``mask``, ``other_mask``,
            ``ignore``, ``logits``, ``target``, ``mif_logits``, ``lif_logits``, ``group_logits`` and
            ``salience``; the usual ones if omitted.
        completeness_on: On how many images the completeness error of the logit is measured, which
            takes a backward pass beside that of the reward: ``some``, the first of the probe set,
            as many as take about 2 % of the time and at least 8; or ``all``.
        deletion: How patches are deleted.
        batch_size: Images per explanation; ``auto``, 32 or as many as there is room for. If memory
            runs out, half as many are tried.
        precision: In which precision half-precision weights (``bf16-true``, ``16-true``) are
            explained: ``float32``, in copies, or ``module``, as they are.
        forward: What is explained, if it is not the call that the validation step shows: the path
            of a submodule, or a function `(module, images) -> scores`.
        backbone: Path of the submodule in which blocks are looked for; found if omitted.
        blocks: Paths of the blocks, in order; found if omitted.
        unpack: Function from your validation batch to `Samples`, if labels or masks are not found.
        dataloader_idx: Which validation loader the probe set comes from.
        num_images: How many probe images are drawn at every audit.
        pictures: How they are drawn.
        schedule: When a fit is audited.
        unknown: What to do when the model has an operation without a gradient rule: ``error``,
            ``warn`` or ``ignore``.
        on_error: What to do when an audit fails: ``raise``, or ``warn`` and let training go on.
            Running out of memory never ends a run.
        name: First part of the log keys; change it to use several audits in one Trainer.
        print_summary: Print a table of all audits at the end of a fit, validate or test.

    Raises:
        MisconfigurationException: If an argument cannot work.

    Example:
        >>> from libragrad_lightning.callbacks import LibraGradAudit
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[LibraGradAudit()], logger=False, max_epochs=1)
    """

    def __init__(
        self,
        max_samples: int = 64,
        probe: Literal["first", "stratified"] | Sequence[int] = "first",
        rules: str | Sequence[str | RuleSet] = ("plain", "libra"),
        method: str | Method = "fullgrad_plus",
        target: Literal["predicted", "label"] | int = "predicted",
        task: Literal["auto", "multiclass", "binary", "multilabel", "regression"] = "auto",
        reward: str = "log_odds",
        metrics: str | Metric | Sequence[str | Metric] | None = None,
        completeness_on: Literal["some", "all"] = "some",
        deletion: Deletion = Deletion(),
        batch_size: int | Literal["auto"] = "auto",
        precision: Literal["float32", "module"] = "float32",
        forward: str | ForwardFunction | None = None,
        backbone: str | None = None,
        blocks: str | Sequence[str] | None = None,
        unpack: UnpackBatch | None = None,
        dataloader_idx: int = 0,
        num_images: int = 8,
        pictures: Pictures = Pictures(),
        schedule: Schedule = Schedule(),
        unknown: Literal["error", "warn", "ignore"] = "error",
        on_error: Literal["raise", "warn"] = "raise",
        name: str = "audit",
        print_summary: bool = True,
    ) -> None:
        try:
            deletion = grouped(Deletion, deletion, "deletion")
            pictures = grouped(Pictures, pictures, "pictures")
            schedule = grouped(Schedule, schedule, "schedule")
            config = audit_config(
                source=Source(forward, unpack, task),
                request=probe_request(probe, max_samples, dataloader_idx),
                rules=rules,
                method=method,
                target=target,
                reward=reward,
                metrics=metrics,
                deletion=deletion,
                batch_size=batch_size,
                unknown=unknown,
                backbone=backbone,
                blocks=blocks,
                precision=precision,
                completeness_on=completeness_on,
            )
            one_of(("raise", "warn"), on_error, "on_error")
            at_least(0, num_images, "num_images")
            pictures.check()
            schedule.check()
        except AuditError as error:
            raise MisconfigurationException(str(error)) from error
        overhead = schedule.max_overhead
        session = AuditSession(config, pictures, num_images, overhead, on_error, name)
        super().__init__(session, schedule, dataloader_idx, print_summary)
