"""Tests of what is told of troubles that last: a line at the beginning, a line at the end."""

import logging

import pytest

from scheduler.core.errors import StoreBusy
from scheduler.service.trouble import Trouble

LOG = logging.getLogger("tests.trouble")


@pytest.fixture
def trouble(caplog: pytest.LogCaptureFixture) -> Trouble:
    caplog.set_level(logging.INFO)
    return Trouble(LOG)


def test_a_trouble_that_lasts_is_told_when_it_begins_and_when_it_is_over(
    trouble: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        trouble.failed("tick", StoreBusy("busy; try again"))
    for _ in range(3):
        trouble.went_well("tick")
    assert caplog.messages == [
        "tick.failed code=store.busy problem='busy; try again'",
        "tick.recovered failures=50",
    ]


def test_another_cause_is_told_and_counted_on(trouble: Trouble, caplog: pytest.LogCaptureFixture) -> None:
    trouble.is_wrong("tick", "a", "first")
    trouble.is_wrong("tick", "b", "second")
    trouble.went_well("tick")
    assert [message.split(" ")[1] for message in caplog.messages] == ["code=a", "code=b", "failures=2"]


def test_the_same_of_another_host_is_another_trouble(trouble: Trouble, caplog: pytest.LogCaptureFixture) -> None:
    trouble.is_wrong("look", "away", "no answer", of="a")
    trouble.is_wrong("look", "away", "no answer", of="b")
    trouble.went_well("look", of="a")
    assert [message.split(" ")[:2] for message in caplog.messages] == [
        ["look.failed", "of=a"],
        ["look.failed", "of=b"],
        ["look.recovered", "of=a"],
    ]


def test_a_defect_is_told_with_its_traceback(trouble: Trouble, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        try:
            _ = 1 // 0
        except ZeroDivisionError as error:
            trouble.failed("tick", error)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
