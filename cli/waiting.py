"""Waits for the server: for a decision that takes longer than one answer, and for a guest to run."""

from collections.abc import Callable

from rich.markup import escape
from rich.status import Status

from cli.client import Json, Problem, part, reasons_of
from cli.connecting import Connection
from cli.output import EXIT_NO, complain, console
from cli.reservation_report import FINAL_PHASES, when_text

DECISION_S, PAUSE_S = 30.0, 1.0
INTERRUPTED = 130


def decided(connection: Connection, answer: Json) -> Json | None:
    """Return the reservation once it is decided; None if that takes too long. Raises Problem when it is refused."""
    if "intent" not in answer:
        return answer
    intent = decided_intent(connection, answer)
    if intent.get("status") != "accepted":
        return None
    return connection.client.get(f"/reservations/{part(str(intent['reservation']))}")


def decided_intent(connection: Connection, answer: Json) -> Json:
    """Return what became of an intent, or how it stood when that took too long. Raises Problem when it is refused."""
    if "intent" not in answer:
        return answer
    waited_s = 0.0
    intent = answer
    while waited_s < DECISION_S:
        intent = connection.client.get(f"/intents/{part(str(answer['intent']))}")
        if intent.get("status") == "accepted":
            return intent
        if intent.get("status") == "refused":
            reasons = reasons_of(intent)
            said = "; ".join(str(reason.get("sentence", "")) for reason in reasons) or "refused"
            raise Problem(said, status=422, document={"code": "request.refused", "reasons": reasons, "detail": said})
        connection.surroundings.sleep(PAUSE_S)
        waited_s += PAUSE_S
    return intent


def until_running(connection: Connection, reservation: Json, *, is_quiet: bool = False) -> int:
    """Follow a reservation until its guest runs; return the exit code. An interrupt leaves it as it is."""
    name = str(reservation["id"])
    out = console()
    try:
        if is_quiet:
            code = _follow(connection, name, lambda _: None)
        elif out.is_terminal:
            with out.status("") as line:
                code = _follow(connection, name, _on_status(line))
        else:
            code = _follow(connection, name, print)
    except KeyboardInterrupt:
        complain(f"{name} stays reserved; see `nightshift show {name}`, give it up with `nightshift cancel {name}`")
        return INTERRUPTED
    if code == 0 and not is_quiet:
        print(f"{name} runs.")
    return code


def _on_status(line: Status) -> Callable[[str], None]:
    def show(text: str) -> None:
        line.update(escape(text))

    return show


def _follow(connection: Connection, name: str, show: Callable[[str], None]) -> int:
    said = ""
    while True:
        reservation = connection.client.get(f"/reservations/{part(name)}")
        phase = str(reservation["phase"])
        if phase == "running":
            return 0
        if phase in FINAL_PHASES:
            reasons = "; ".join(str(reason.get("sentence", "")) for reason in reasons_of(reservation))
            complain(f"{name} will not run: it is {phase}{f' ({reasons})' if reasons else ''}")
            return EXIT_NO
        why = connection.client.get(f"/reservations/{part(name)}/why")
        times = connection.times(why)
        sentences = [times.in_text(str(reason.get("sentence", ""))) for reason in reasons_of(why)]
        now_said = f"{name} {phase}, {when_text(reservation, times)}" + (f": {sentences[0]}" if sentences else "")
        if now_said != said:
            show(now_said)
            said = now_said
        connection.surroundings.sleep(PAUSE_S)
