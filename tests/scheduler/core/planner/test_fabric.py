"""A host whose NVLink fabric somebody else divides is simulated only."""

import pytest

from scheduler.core.intents import AddHost, FiledIntent
from scheduler.core.plan import Decided
from scheduler.core.planner.step import step
from scheduler.core.reasons import ReasonCode, sentence
from scheduler.core.requests import HostId, Role
from scheduler.profiles.loading import load_profile
from tests.property.worlds import World, world


def added(made: World, profile: str, connect: str) -> Decided:
    intent = AddHost(
        host=HostId("other"),
        profile=profile,
        storage="other",
        connect=connect,
        policy_version=1,
        horizon_at=made.plan.horizon_at,
    )
    filed = FiledIntent(seq=99, at=made.now, author="root", role=Role.ADMIN, intent=intent)
    (decided,) = step(made.plan, (filed,), {}, made.now, settings=made.settings, profiles=load_profile).decided
    return decided


@pytest.mark.parametrize("profile", ["hgx-h100", "dgx-2-fabric"])
def test_a_real_host_with_a_shared_fabric_is_refused(profile: str) -> None:
    made = world(windows=())
    (why,) = added(made, profile, "qemu+ssh://root@hgx/system").reasons
    assert why.code is ReasonCode.UNKNOWN_PROFILE
    assert "simulated only" in sentence(why)
    assert added(made, profile, "").is_accepted


def test_a_real_host_that_passes_its_switches_through_is_not() -> None:
    assert added(world(windows=()), "dgx-2", "qemu+ssh://root@dgx2/system").is_accepted
