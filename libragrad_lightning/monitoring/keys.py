"""Keys under which audits log."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException

from libragrad_lightning.monitoring.hooks import AuditHooks


def check_key(trainer: pl.Trainer, key: str, argument: str) -> None:
    """Refuse a key that an audit of a Trainer should log, and does not.

    Raises:
        MisconfigurationException: If the key begins with the name of an audit that has no such
            metric.
    """
    keys = [k for c in trainer.callbacks if isinstance(c, AuditHooks) for k in c.keys]  # type: ignore[attr-defined]
    own = [k for k in keys if k.partition("/")[0] == key.partition("/")[0]]
    if own and key not in own:
        raise MisconfigurationException(
            f"ShortcutAlarm watches `{key}`, which is not logged; set `{argument}` to one of "
            f"{sorted(own)}."
        )
