"""Every sentence is said once in a fit."""

import logging
import warnings

from libragrad_lightning.monitoring.notices import Notices


def warned(notices, *given):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for arguments in given:
            notices.warn(*arguments)
    return [str(warning.message) for warning in said]


def test_a_warning_is_given_once_whatever_its_numbers():
    notices = Notices()
    assert warned(notices, ("one",), ("one",), ("two",)) == ["one", "two"]
    assert warned(notices, ("3 of 4", "share"), ("4 of 4", "share")) == ["3 of 4"]
    assert warned(notices, ("3 of 4",)) == ["3 of 4"]
    notices.forget()
    assert warned(notices, ("one",), ("4 of 4", "share")) == ["one", "4 of 4"]


def test_a_sentence_that_needs_no_action_is_said_once(caplog):
    notices = Notices()
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        for sentence in ("one", "two", "one"):
            notices.info(sentence)
        notices.forget()
        notices.info("one")
    assert caplog.messages == ["one", "two", "one"]
