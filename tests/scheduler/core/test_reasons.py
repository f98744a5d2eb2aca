"""Every reason can be said, whatever facts it carries."""

import string

import pytest

from scheduler.core.reasons import _SENTENCES, ReasonCode, reason, sentence


@pytest.mark.parametrize("code", list(ReasonCode))
def test_every_code_has_a_sentence_and_saying_it_never_fails(code: ReasonCode) -> None:
    assert sentence(reason(code))
    names = {name for _, name, _, _ in string.Formatter().parse(_SENTENCES[code]) if name}
    said = sentence(reason(code, **{name: (7 if name.endswith("_at") else "x") for name in names}))
    assert "?" not in said


def test_instants_are_shown_as_the_reader_wants_them() -> None:
    why = reason(ReasonCode.WAITS_FOR_WINDOW, window="night", start_at=60)
    assert sentence(why) == "waits for window night to open at 1970-01-01 00:01:00Z"
    assert sentence(why, show_instant=lambda at: f"<{at}>") == "waits for window night to open at <60>"


def test_facts_are_kept_in_order_of_name_and_a_missing_one_is_absent() -> None:
    why = reason(ReasonCode.LIMIT, owner="ada", limit=3)
    assert why.facts == (("limit", 3), ("owner", "ada"))
    assert why.fact("owner") == "ada"
    assert why.fact("host") is None


def test_a_sentence_about_one_gpu_speaks_of_one() -> None:
    one = reason(ReasonCode.NEVER_FITS, gpus=1, run_s=3600, queue="hpc", horizon_at=60, remedy="ask for less")
    assert sentence(one).startswith("1 GPU for 3600 s")
    waits = reason(ReasonCode.WAITS_FOR_GPUS, host="dgx2-a", gpus="2", problem="they are reset")
    assert sentence(waits) == "waits for GPU 2 on dgx2-a: they are reset"
    both = reason(ReasonCode.WAITS_FOR_GPUS, host="dgx2-a", gpus="2, 3", problem="they are reset")
    assert sentence(both) == "waits for GPUs 2, 3 on dgx2-a: they are reset"
