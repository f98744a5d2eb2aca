"""The picture: what is drawn where."""

from cli.gantt import Bar, Shade, draw
from scheduler.core.spans import HOUR_S


def lines(*bars: Bar, shades: tuple[Shade, ...] = (), now: int | None = None) -> list[str]:
    picture = draw(
        bars,
        row_labels=["GPU 0", "GPU 1"],
        from_at=0,
        until_at=12 * HOUR_S,
        columns=12,
        show_hour=lambda at: f"{at // HOUR_S:02}",
        shades=shades,
        now=now,
    )
    return picture.plain.split("\n")


def bar(start_h: int, end_h: int, *rows: int, label: str = "7") -> Bar:
    return Bar(rows=frozenset(rows), start_at=start_h * HOUR_S, end_at=end_h * HOUR_S, label=label, colour=0)


def test_a_bar_fills_its_cells_on_all_its_rows_and_is_labelled_once() -> None:
    _, first, second, *_ = lines(bar(2, 6, 0, 1))
    assert first == "GPU 0   [7·]      "
    assert second == "GPU 1   [··]      "


def test_what_is_shorter_than_a_cell_is_still_seen() -> None:
    short = Bar(rows=frozenset({0}), start_at=HOUR_S, end_at=HOUR_S + 60, label="7", colour=0)
    assert lines(short)[1] == "GPU 0  ▪          "


def test_a_bar_that_goes_past_the_edge_is_cut_there() -> None:
    assert lines(bar(10, 40, 0))[1] == "GPU 0           []"


def test_windows_are_named_over_their_time() -> None:
    shade = Shade(start_at=4 * HOUR_S, end_at=11 * HOUR_S, label="night")
    assert lines(shades=(shade,))[1] == "          [night]"


def test_now_is_marked() -> None:
    assert lines(now=3 * HOUR_S)[1] == "GPU 0    │        "


def test_the_axis_shows_as_many_hours_as_fit() -> None:
    assert lines()[0] == "      00  04  08"


def test_the_hours_on_the_axis_are_counted_from_the_midnight_before() -> None:
    picture = draw(
        [],
        row_labels=["GPU 0"],
        from_at=7 * HOUR_S,
        until_at=31 * HOUR_S,
        columns=24,
        show_hour=lambda at: f"{at // HOUR_S % 24:02}",
        hours_from_at=0,
    )
    assert picture.plain.split("\n")[0] == "       08  12  16  20  00  04"


def test_what_others_hold_has_a_colour_that_no_reservation_has() -> None:
    def background(colour: int | None) -> str:
        taken = Bar(rows=frozenset({0}), start_at=0, end_at=HOUR_S, label="", colour=colour)
        picture = draw(
            [taken], row_labels=["GPU 0"], from_at=0, until_at=HOUR_S, columns=8, show_hour=lambda at: f"{at}"
        )
        (style,) = {str(span.style) for span in picture.spans if "on " in str(span.style)}
        return style

    assert background(None) not in {background(number) for number in range(12)}
