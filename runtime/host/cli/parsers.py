"""How every command's line is read: parsers that say what was meant, filled only when they are needed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

BEFORE_COMMAND = ("--host", "--verbose", "--version")
FORMATS = ("table", "json", "yaml")
BANDWIDTH = "of its network, each way: 100mbit, 1.5gbit"
SCRATCH = "where what is written over the image goes: a disk of 512m or 2g the host makes, or a block device of its own"
EGRESS = "what it may reach, the first that matches decides: allow|deny ADDRESS|CIDR|any [PORT[-PORT][/PROTOCOL]]"
LIMIT = (
    "what its processes may use together, a file of cgroup v2: memory.max=64m, cpu.max=0.5, pids.max=64, io.weight=50"
)
MOST_S = 1e9  # thirty years: what is longer, an infinite time among it, no deadline and no clock takes
Fill = Callable[["Parser"], None]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, with what may have been meant; exit code 2.

    fill:  adds the arguments, once, when this parser is first asked for anything: a command pays for its own alone.
    """

    def __init__(self, *, fill: Fill | None = None, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)
        self._fill = fill

    def filled(self) -> Parser:
        """This parser with all its arguments."""
        if (fill := self._fill) is not None:
            self._fill = None
            fill(self)
        return self

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.filled()
        found, left = super().parse_known_args(args, namespace)
        if left and self._subparsers is None:  # told here, where it is known which command they were for
            self.error(self._unknown(left))
        return found, left

    def _unknown(self, words: list[str]) -> str:
        import difflib

        option = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
        if option is None:
            return f"expected no more words, got {' '.join(words)}"
        near = difflib.get_close_matches(option, self._option_string_actions, n=2, cutoff=0.6)
        if option in BEFORE_COMMAND:
            meant = f", it stands before the command: zone {option} … {self.prog.removeprefix('zone ')}"
        else:
            meant = f", did you mean {' or '.join(near)}?" if near else ""
        return f"no such option as {option}{meant}"

    def format_help(self) -> str:
        self.filled()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {self.prog}: {message} ({self.prog} --help shows how)\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            import difflib

            if (here := getattr(action, "elsewhere", {}).get(value)) is not None:
                raise argparse.ArgumentError(action, f"no such choice as {value!r}, docker's is `{here}` here")
            known = [str(choice) for choice in action.choices]
            near = difflib.get_close_matches(str(value), known, n=2, cutoff=0.5)
            meant = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
            raise argparse.ArgumentError(action, f"no such choice as {value!r}, {meant}")


def command(
    parent: Any, name: str, text: str, *, run: Any = None, epilog: str = "", fill: Fill | None = None
) -> Parser:
    """A command's parser below `parent`; None makes the topmost one."""
    shape: dict[str, Any] = {"description": text, "epilog": epilog, "fill": fill}
    made: Parser = Parser(prog=name, **shape) if parent is None else parent.add_parser(name, help=text, **shape)
    if run is not None:
        made.set_defaults(run=run)
    return made


def below(parser: Parser) -> Any:
    """The place for commands below a command."""
    return parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)


def complete(action: argparse.Action, kind: str) -> argparse.Action:
    """Say what completion offers for an argument: zones, images, files, …; see completion.py."""
    action.completes = kind  # type: ignore[attr-defined]
    return action


def elsewhere(action: argparse.Action, words: Mapping[str, str]) -> None:
    """Say what stands here for words that docker has; told where one of them is no choice."""
    action.elsewhere = words  # type: ignore[attr-defined]


def zone_argument(parser: Parser, *, many: bool = False, optional: bool = False) -> None:
    """The zone a command is about, as `zone`; several as `zones`."""
    text = "a zone's name, its id, or how its id begins"
    if many:
        complete(parser.add_argument("zones", metavar="ZONE", nargs="*" if optional else "+", help=text), "zones")
    else:
        complete(parser.add_argument("zone", metavar="ZONE", nargs="?" if optional else None, help=text), "zones")


def format_argument(parser: Parser, *, default: str = "table", formats: tuple[str, ...] = FORMATS) -> None:
    """`--format`."""
    text = f"{', '.join(formats[:-1])} or {formats[-1]} (default: {default})"
    parser.add_argument("--format", choices=formats, default=default, metavar="F", help=text)


def quiet_argument(parser: Parser, what: str) -> None:
    """`-q`."""
    parser.add_argument("-q", "--quiet", action="store_true", help=what)


def network_arguments(parser: Parser) -> None:
    """--network and --isolated."""
    network = parser.add_argument(
        "--network", default="", metavar="NAME", help="the network to share with other zones (default: a private one)"
    )
    complete(network, "networks")
    parser.add_argument("--isolated", action="store_true", help="apart from the other zones of that network")


def start_timeout_argument(parser: Parser) -> None:
    """--timeout of what starts a zone."""
    text = (
        "seconds its workload may take to start before the zone is ended, 0 for any (default: 300, if it is waited for)"
    )
    parser.add_argument("--timeout", type=seconds, metavar="S", help=text)


def seconds(text: str) -> float:
    """A time to wait, 0 and more. Raises what argparse expects of a type."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < MOST_S:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, got {text!r}")
    return value
