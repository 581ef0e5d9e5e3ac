"""Operations without a rule are met before a model is audited."""

import warnings

import pytest
from config_cases import config
from session_cases import IMAGES, Small
from unknown_operation import CustomActivation

from libragrad_lightning.audit import AuditError
from libragrad_lightning.models import read_token_model
from libragrad_lightning.monitoring.coverage import checked_coverage


def covered(act=None, **changes):
    net = Small().net.eval()
    if act is not None:
        net.blocks[0].mlp.act = act
    tokens = read_token_model(net, IMAGES[:1])
    return checked_coverage(net, tokens, IMAGES[:3], config(**changes))


def test_every_rule_set_has_a_report_of_its_own():
    reports = covered()
    assert [(report.rules, report.unknown) for report in reports] == [("plain", ()), ("libra", ())]


def test_operations_without_a_rule_are_refused_or_told():
    with pytest.raises(AuditError, match=r"SwishBackward in blocks\.0\.mlp\.act.*`unknown='warn'`"):
        covered(CustomActivation())
    with pytest.warns(UserWarning, match="SwishBackward.*; their ordinary gradients are kept"):
        covered(CustomActivation(), unknown="warn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reports = covered(CustomActivation(), unknown="ignore")
    assert "SwishBackward" in [use.operation for use in reports[1].unknown]
