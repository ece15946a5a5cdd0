"""How commands write: tables, escapes, sizes."""

from __future__ import annotations

import os

import pytest

from runtime.host.cli import redraw
from runtime.host.cli.console import raw_mode
from runtime.host.cli.show_image import age
from runtime.host.cli.terminal import cut, escaped, plain_table, size_text, table, width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 名", "plain ü 名"),
        ("a\x1b[31m", "a\\x1b[31m"),
        ("line\nbreak\ttab", "line\\nbreak\\ttab"),
        ("rtl\u202e", "rtl\\u202e"),
        ("a\\n", "a\\\\n"),
        (b"latin\xe9", "latin\\xe9"),
        ("ü".encode(), "ü"),
        ("\x9b31m", "\\x9b31m"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_could_act_on_a_terminal_is_escaped(text: str | bytes, shown: str) -> None:
    assert escaped(text) == shown


def test_no_two_names_look_alike() -> None:
    names = [b"\xff", b"\\xff", "\xff".encode(), b"\n", b"\\n", b"\\\n", b"\\\\n"]
    assert len({escaped(name) for name in names}) == len(names)


def test_columns_are_as_wide_as_their_widest_cell_and_lines_do_not_trail() -> None:
    assert plain_table([["A", "B", "C"], ["long", "", "1"], ["x", "yy", ""]]) == "A     B   C\nlong      1\nx     yy\n"


def test_table_off_a_terminal_never_wraps_and_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    table(["NAME"], [["x" * 500], ["\x1b]0;title\x07"], [None]])
    assert capsys.readouterr().out == "NAME\n" + "x" * 500 + "\n\\x1b]0;title\\x07\n\n"


def test_terminal_that_has_gone_needs_no_restoring() -> None:
    ours, theirs = os.openpty()
    with raw_mode(theirs):
        os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (20 << 20, "20.0 MiB"), (3 << 30, "3.0 GiB")]
)
def test_size_for_people(size: int, shown: str) -> None:
    assert size_text(size) == shown


def test_age_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)  # 2023-11-14T22:13:20Z
    shown = {
        "2023-11-14T22:13:00Z": "now",
        "2023-11-14T21:13:20.123Z": "1 h ago",
        "2023-11-04T22:13:20+00:00": "10 d ago",
        "1970-01-01T00:00:00Z": "1970-01-01",
        "2099-01-01T00:00:00Z": "2099-01-01",
        "": "",
        "\x1b[2Jnonsense": "",
    }
    assert {when: age(when) for when in shown} == shown


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("plain", 5),
        ("名前", 4),
        ("ｆｕｌｌ", 8),
        ("e\u0301", 1),  # a combining accent
        ("\U0001f680", 2),
        ("\u2764", 1),
        ("\u2764\ufe0f", 2),  # the same, as an emoji
        ("\U0001f680\ufe0f", 2),
        ("\u0301\ufe0f", 0),
        ("\U0001f1e9\U0001f1ea", 4),
    ],
)
def test_text_takes_the_columns_a_terminal_gives_it(text: str, columns: int) -> None:
    assert width(text) == columns
    assert [cut(text, room) for room in (columns, columns + 1)] == [text, text]
    assert all(width(cut(text, room)) <= room for room in range(columns))


def test_columns_stand_under_each_other_whatever_script_is_in_them() -> None:
    lines = plain_table([["A", "B"], ["名前", "x"], ["e\u0301", "y"], ["plain", "z"]]).splitlines()
    assert [width(line[: line.rindex(line[-1])]) for line in lines] == [7] * 4


def test_line_that_is_drawn_again_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(redraw, "window_size", lambda: (24, 8))
    monkeypatch.setattr(redraw, "write", drawn.append)
    screen = redraw.Redraw()
    screen.in_place = True
    for _ in range(2):
        screen.draw(["名前名前名前", "plain and long"])
    assert drawn[0] == "\r名前名\x1b[K\nplain a\x1b[K\n\x1b[J"
    assert drawn[1].startswith("\x1b[2A\r")
