"""What docs/zone.md shows can be typed, and what can be typed is in it."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.bundle.capabilities import CAPABILITIES
from pipeline.seccomp import filters, profile
from runtime.host.cli.commands import COMMANDS, parser

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests" / "docs"))

from refresh import commands_of, outputs_of, refreshed  # noqa: E402 - tests/docs is no package

DOCS = PROJECT / "docs"
PAGE = (PROJECT / "docs" / "zone.md").read_text()


def zone_commands(line: str) -> list[list[str]]:
    """The words of every `zone` command in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    found: list[list[str]] = []
    for at, word in enumerate(words):
        if word == "zone" and (at == 0 or words[at - 1] in ("|", ";", "&&")):
            end = next((i for i in range(at, len(words)) if words[i] in ("|", ";", "&&", ">")), len(words))
            found.append(words[at + 1 : end])
    return found


@pytest.mark.parametrize("line", commands_of(PAGE))
def test_every_command_shown_is_one(line: str) -> None:
    for words in zone_commands(line):
        parser().parse_args(words)


def test_every_command_is_on_the_page() -> None:
    missing = [one.name for one in COMMANDS if not re.search(rf"`(zone )?{one.name}\b|zone {one.name} ", PAGE)]
    assert missing == []


# Those that a person does not type: what ssh runs at the far end, what a shell's completion asks.
NOT_TYPED = {"host dial-stdio", "completion words"}


def leaves(made: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command that has none below it."""
    below = [action for action in made.filled()._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for name, one in action.choices.items():
            yield from leaves(one, (*words, name))
    if not below:
        yield " ".join(words)


def test_every_command_below_another_is_shown_as_it_is_typed() -> None:
    commands = [line for page in sorted(DOCS.glob("*.md")) for line in commands_of(page.read_text())]
    there = set(leaves(parser()))
    assert there > NOT_TYPED and len(there) > 50
    typed = {leaf for leaf in there if any(re.search(rf"\bzone {leaf}(?![\w-])", line) for line in commands)}
    assert there - typed == NOT_TYPED


# What prints nothing where it succeeds.
SILENT = (r"mkdir .* > \S+", r"zone cp \S+ \w+:\S+", r"systemctl reload \w+")


@pytest.mark.parametrize(
    "page", ["../README.md", "zone.md", "network.md", "hosts.md", "lab.md", "store.md", "cache.md", "images.md"]
)
def test_every_command_shown_has_its_output(page: str) -> None:
    found = outputs_of((DOCS / page).read_text())
    assert [command for command, _ in found] == commands_of((DOCS / page).read_text()) != []
    empty = [command for command, lines in found if not lines]
    assert [command for command in empty if not any(re.fullmatch(pattern, command) for pattern in SILENT)] == []


def test_no_output_names_a_directory_that_was_there_only_for_its_run() -> None:
    temporary = re.compile(r"/tmp/(docs-|tmp|pytest)")
    assert [page.name for page in sorted(DOCS.glob("*.md")) if temporary.search(page.read_text())] == []


def test_page_is_refreshed_without_touching_its_text() -> None:
    class Shell:
        def run(self, command: str) -> tuple[str, int]:
            return f"output of {command}\n", 0

    page = "# a\n\n<!-- run: setup -->\n```console\n$ one \\\n  two\nold\n\nolder\n$ three\n```\n"
    page += "after\n```sh\n$ four\n```\n"
    once = refreshed(page, Shell())  # type: ignore[arg-type]
    assert "old" not in once
    assert (
        "$ one \\\n  two\noutput of one \\\n  two\n$ three\noutput of three\n```\nafter\n```sh\n$ four\n```\n" in once
    )
    assert refreshed(once, Shell()) == once  # type: ignore[arg-type]


def test_every_method_of_a_zones_agent_is_told_and_no_other() -> None:
    page = (DOCS / "in-zone.md").read_text()
    source = (PROJECT / "runtime" / "init" / "agent" / "methods.py").read_text()  # which only a zone can import
    known = re.findall(r'^    "(\w+)": _', source, re.M)
    table = page[page.index("| method | parameters |") :].split("\n\n")[0].splitlines()[2:]
    assert sorted(word for row in table for word in re.findall(r"`(\w+)`", row.split("|")[1])) == sorted(known)


def test_the_length_of_the_default_filter_is_what_is_told() -> None:
    told = re.search(r"(\d+) instructions, of which a call", (DOCS / "in-zone.md").read_text())
    rights = [f"CAP_{name}" for name in CAPABILITIES]
    assert told is not None and int(told[1]) * 8 == len(filters.compile(profile.default(rights)))
