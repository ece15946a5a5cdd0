"""Runs what a page shows, and writes what came out into the page: `python tests/docs/refresh.py docs/zone.md`.

In a block that begins with ```console every line `$ COMMAND` is run (a backslash at its end continues it), and what is
below it up to the next one is replaced by what the command wrote, but for its progress, which a terminal takes away
again. `<!-- run: COMMAND -->` is run and not shown. All commands of a page run in one bash, in an empty directory, with
this checkout's `zone` before all others.

    --fake    against the scripted zoned of demo.py, rather than the host that $ZONE_HOST or this machine names
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PROGRESS = re.compile(r"  \S.*( …|: (\d+ steps, )?\d+ (s|min)|: \d+ steps in .*)")
HIDDEN = re.compile(r"<!-- run: (.*) -->")
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]


@dataclass
class Part:
    """Lines of a page as they are, or a command (its own lines are kept) and the lines of its output."""

    lines: list[str]
    command: str = ""
    output: bool = False


def parts_of(text: str) -> Iterator[Part]:
    """A page in parts; together they are the page again, without the outputs."""
    inside, lines = False, iter(text.splitlines())
    for line in lines:
        if line.startswith("```"):
            inside = line == "```console"
            yield Part([line])
        elif inside and line.startswith("$ "):
            whole = [line]
            while whole[-1].endswith("\\"):
                whole.append(next(lines))
            yield Part(whole, "\n".join(whole)[2:], output=True)
        elif not inside:
            hidden = HIDDEN.fullmatch(line)
            yield Part([line], hidden[1] if hidden else "")


def commands_of(text: str) -> list[str]:
    """The commands a page shows, in order."""
    return [part.command for part in parts_of(text) if part.output]


def outputs_of(text: str) -> list[tuple[str, list[str]]]:
    """The commands a page shows, each with the lines below it."""
    found: list[tuple[str, list[str]]] = []
    inside, lines = False, iter(text.splitlines())
    for line in lines:
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            while line.endswith("\\"):
                line = f"{line}\n{next(lines)}"
            found.append((line[2:], []))
        elif inside and found:
            found[-1][1].append(line)
    return found


class Shell:
    """One bash for all commands of a page."""

    def __init__(self, env: dict[str, str], directory: str) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=directory,
            text=True,
        )

    def run(self, command: str) -> tuple[str, int]:
        """What it wrote to stdout and stderr, and its exit code."""
        mark = secrets.token_hex(8)
        assert self._bash.stdin is not None and self._bash.stdout is not None
        self._bash.stdin.write(f'{{ {command}\n}} </dev/null; echo "{mark} $?"\n')
        self._bash.stdin.flush()
        written = ""
        while (line := self._bash.stdout.readline()) and mark not in line:
            written += line
        before, _, code = line.partition(mark)
        return written + before, int(code or 1)

    def close(self) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        self._bash.wait()


def refreshed(text: str, shell: Shell) -> str:
    """The page with new outputs."""
    lines: list[str] = []
    for part in parts_of(text):
        lines += part.lines
        if part.command:
            sys.stderr.write(f"$ {part.command}\n")
            written, _ = shell.run(part.command)
            if part.output:
                lines += [line for line in written.rstrip("\n").splitlines() if not PROGRESS.fullmatch(line)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--fake", action="store_true")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="docs-"))
        env = os.environ | {"PATH": f"{PROJECT}/.venv/bin:{os.environ['PATH']}", "TERM": "dumb", "LC_ALL": "C.UTF-8"}
        if arguments.fake:
            from demo import demo

            env["ZONE_HOST"] = stack.enter_context(demo(Path(scratch) / "zoned.sock")).address
        work = Path(scratch) / "work"
        work.mkdir()
        shell = Shell(env, str(work))
        stack.callback(shell.close)
        arguments.page.write_text(refreshed(arguments.page.read_text(), shell))


if __name__ == "__main__":
    main()
