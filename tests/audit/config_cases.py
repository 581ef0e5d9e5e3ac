"""A configuration of an audit, with other arguments on request."""

from libragrad_lightning.audit import Deletion, Source, audit_config, probe_request


def config(**changes):
    source = Source(changes.pop("forward", None), None, changes.pop("task", "auto"))
    given = {
        "source": source,
        "request": probe_request("first", 8, 0),
        "rules": ("plain", "libra"),
        "method": "fullgrad_plus",
        "target": "predicted",
        "reward": "log_odds",
        "metrics": None,
        "deletion": Deletion(),
        "batch_size": 4,
        "unknown": "error",
        "backbone": None,
        "blocks": None,
        "precision": "float32",
    }
    return audit_config(**(given | changes))
