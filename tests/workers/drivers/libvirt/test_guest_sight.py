"""What a guest says of the devices that it was given: asked once, believed for itself alone."""

import threading
from collections.abc import Callable
from uuid import UUID

import pytest

from scheduler.core.facts import CheckResult, TroubleKind
from tests.running import wait_for
from workers.drivers.libvirt.guest_sight import GUEST, GuestSight, Running, read_devices
from workers.ports import AgentSilent

GPU, SWITCH = "10de:1db8", "10de:1ac2"
IDS = {"0000:34:00.0": GPU, "0000:36:00.0": GPU, "0000:b4:00.0": SWITCH, "0000:99:00.0": GPU}
GIVEN = frozenset({"0000:34:00.0", "0000:36:00.0", "0000:b4:00.0"})
ID = UUID(int=17)


def running(*, boot: int = 1, does_answer: bool = True) -> Running:
    return Running(uuid=ID, name="r-17-2g0-1", boot=boot, does_answer=does_answer, devices=GIVEN)


class Seen:
    """A guest's eyes, and how often they were asked."""

    def __init__(self, say: Callable[[], tuple[str, ...]]) -> None:
        self.say, self.asked, self.changes = say, 0, 0
        self.sight = GuestSight(self._ask, self._changed)

    def _ask(self, _uuid: UUID) -> tuple[str, ...]:
        self.asked += 1
        return self.say()

    def _changed(self) -> None:
        self.changes += 1

    def after_an_answer(self) -> GuestSight:
        self.sight.look([running()], IDS)
        wait_for("it was told", lambda: self.changes == 1, within_s=10)
        return self.sight


def silent() -> tuple[str, ...]:
    raise AgentSilent("The command guest-file-open has not been found")


def test_a_guest_that_sees_all_that_it_was_given_passes() -> None:
    sight = Seen(lambda: ("8086:29c0", GPU, GPU, SWITCH)).after_an_answer()
    checks = sight.look([running()], IDS)
    assert checks.keys() == GIVEN
    assert {(check.result, check.source) for check in checks.values()} == {(CheckResult.PASSED, GUEST)}
    assert sight.troubles() == ()


def test_a_guest_that_misses_one_fails_each_of_that_kind_and_says_how_many() -> None:
    sight = Seen(lambda: (GPU, SWITCH)).after_an_answer()
    checks = sight.look([running()], IDS)
    assert {a: check.result for a, check in checks.items()} == {
        "0000:34:00.0": CheckResult.FAILED,
        "0000:36:00.0": CheckResult.FAILED,
        "0000:b4:00.0": CheckResult.PASSED,
    }
    (trouble,) = sight.troubles()
    assert (trouble.code, trouble.kind) == ("host.unseen_by_guest", TroubleKind.WRONG)
    assert f"the guest of r-17-2g0-1 sees 1 of the 2 devices {GPU}" in trouble.problem


def test_an_agent_that_cannot_tell_leaves_it_unverified_and_is_not_asked_again() -> None:
    seen = Seen(silent)
    sight = seen.after_an_answer()
    checks = sight.look([running()], IDS)
    assert {(check.result, check.source) for check in checks.values()} == {(CheckResult.UNVERIFIED, GUEST)}
    assert "guest-file-open has not been found" in checks["0000:34:00.0"].detail
    assert [(t.code, t.kind) for t in sight.troubles()] == [("check.seen_by_guest", TroubleKind.UNVERIFIED)]
    assert seen.asked == 1


def test_a_guest_whose_agent_does_not_answer_yet_is_not_asked_and_no_trouble() -> None:
    seen = Seen(silent)
    checks = seen.sight.look([running(does_answer=False)], IDS)
    assert {check.result for check in checks.values()} == {CheckResult.UNVERIFIED}
    assert (seen.asked, seen.sight.troubles()) == (0, ())


def test_a_look_does_not_wait_for_a_guest_that_takes_its_time() -> None:
    answer = threading.Event()

    def slow() -> tuple[str, ...]:
        answer.wait()
        return (GPU, GPU, SWITCH)

    seen = Seen(slow)
    for _ in range(3):
        checks = seen.sight.look([running()], IDS)
        assert {check.result for check in checks.values()} == {CheckResult.UNVERIFIED}
    answer.set()
    wait_for("it was told", lambda: seen.changes == 1, within_s=10)
    assert seen.asked == 1


def test_a_guest_that_was_started_anew_is_asked_anew() -> None:
    seen = Seen(lambda: (GPU, GPU, SWITCH))
    sight = seen.after_an_answer()
    assert {check.result for check in sight.look([running(boot=2)], IDS).values()} == {CheckResult.UNVERIFIED}
    wait_for("it was told", lambda: seen.changes == 2, within_s=10)
    assert {check.result for check in sight.look([running(boot=2)], IDS).values()} == {CheckResult.PASSED}


def test_what_is_off_is_forgotten() -> None:
    sight = Seen(lambda: ()).after_an_answer()
    sight.look([running()], IDS)
    assert sight.troubles() != ()
    assert sight.look([], IDS) == {}
    assert sight.troubles() == ()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("00f8\t80862918\t0\t0\n0100\t10DE1db8\tb\n", ("8086:2918", GPU)),
        ("", ()),
        ("no such thing\n0100\n", ()),
    ],
)
def test_the_list_of_linux_is_read(text: str, ids: tuple[str, ...]) -> None:
    assert read_devices(text) == ids
