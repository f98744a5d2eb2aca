"""Which calendar to use: the compiled one where it is, else the one in Python. Both give the same answers."""

from scheduler.core.calendar.compiled import CompiledCalendar, is_available
from scheduler.core.calendar.pure import PureCalendar
from scheduler.core.spans import Instant

Calendar = PureCalendar | CompiledCalendar


def make_calendar(now: Instant, *, may_be_compiled: bool = True) -> Calendar:
    """Return an empty calendar."""
    return CompiledCalendar(now) if may_be_compiled and is_available() else PureCalendar(now)
