"""What could stand at the end of a command line: read from the parsers, the store, and zoned."""

from __future__ import annotations

import argparse
import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import SentenceError
from runtime.host.cli.commands import parser
from runtime.host.cli.parsers import Parser

ZONED_TIMEOUT_S = 2.0


@dataclass
class Candidates:
    """words: with what each is, or "". left_to_shell: files or directories, where those may stand, too."""

    words: dict[str, str] = field(default_factory=dict)
    left_to_shell: str = ""


def candidates(line: Sequence[str]) -> Candidates:
    """For a line without the command's own name; its last word is the one to complete, and may be empty."""
    *before, last = line or [""]
    walk = Walk(parser().filled())
    for word in before:
        walk.take(word)
    found = Candidates()
    if walk.lost:
        return found
    option, equals, _ = last.partition("=")
    if walk.wanting is None and equals and option.startswith("--") and (action := walk.option(option)) is not None:
        inner = Candidates()
        _values(action, walk, inner)
        words = {f"{option}={word}": text for word, text in inner.words.items()}
        found = Candidates(words, inner.left_to_shell)
    elif walk.wanting is not None:
        _values(walk.wanting, walk, found)
    elif last.startswith("-") and not walk.only_words:
        found.words = dict(walk.options())
    elif (action := walk.positional()) is not None:
        _values(action, walk, found)
    found.words = {word: text for word, text in found.words.items() if word.startswith(last)}
    return found


class Walk:
    """Reads a line as argparse would, as far as completion needs it."""

    def __init__(self, top: Parser) -> None:
        self.at = top
        self.wanting: argparse.Action | None = None  # an option that waits for its value
        self.host = ""
        self.lost = False  # a command nobody knows
        self.only_words = False  # what follows a command to run in a zone is its own
        self._positionals = 0

    def take(self, word: str) -> None:
        """The next word of the line."""
        if self.wanting is not None:
            self._value(self.wanting, word)
            self.wanting = None
        elif word.startswith("-") and word != "-" and not self.only_words:
            self._option(word)
        else:
            self._word(word)

    def _option(self, word: str) -> None:
        name, equals, value = word.partition("=")
        if not word.startswith("--") and len(word) > 2:  # -it, -p8080:80
            for at, letter in enumerate(word[1:], 2):
                action = self.option(f"-{letter}")
                if action is not None and action.nargs != 0:
                    self.wanting = None if word[at:] else action
                    return
            return
        action = self.option(name)
        if action is None or action.nargs == 0:
            return
        if equals:
            self._value(action, value)
        else:
            self.wanting = action

    def _value(self, action: argparse.Action, value: str) -> None:
        if action.dest == "host":
            self.host = value

    def _word(self, word: str) -> None:
        action = self.positional()
        if isinstance(action, argparse._SubParsersAction):
            chosen = action.choices.get(word)
            self.lost = not isinstance(chosen, Parser)
            if isinstance(chosen, Parser):
                self.at, self._positionals = chosen.filled(), 0
            return
        self._positionals += 1
        following = self.positional()
        self.only_words = following is not None and following.nargs == argparse.REMAINDER

    def option(self, name: str) -> argparse.Action | None:
        """The option of that name."""
        return next((action for action in self.at._actions if name in action.option_strings), None)

    def options(self) -> Iterator[tuple[str, str]]:
        """Every way to write an option, with its help."""
        for action in self.at._actions:
            for name in action.option_strings:
                yield name, (action.help or "").replace("%%", "%")

    def positional(self) -> argparse.Action | None:
        """The argument the next word would be; one that takes many takes all that follow."""
        at = self._positionals
        for action in self.at._actions:
            if action.option_strings:
                continue
            if at == 0 or action.nargs in ("+", "*", argparse.REMAINDER):
                return action
            at -= 1
        return None


def _values(action: argparse.Action, walk: Walk, found: Candidates) -> None:
    """What an argument may be."""
    if isinstance(action, argparse._SubParsersAction):
        texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
        if texts:
            found.words = texts
        else:  # the topmost commands, whose list is not argparse's
            from runtime.host.cli.commands import COMMANDS

            found.words = {one.name: one.text for one in COMMANDS}
    elif action.choices is not None:
        found.words = {str(choice): "" for choice in action.choices}
    elif (kind := getattr(action, "completes", "")) in ("files", "directories"):
        found.left_to_shell = kind
    elif kind in _KINDS:
        with contextlib.suppress(SentenceError, OSError):
            _KINDS[kind](walk, found)


def _zones(walk: Walk, found: Candidates) -> None:
    found.words |= {zone.name: zone.state for zone in _list_zones(walk.host)}


def _list_zones(host: str) -> list[Any]:
    from runtime.host.api.host_pb2 import ListZonesRequest
    from runtime.host.client import connect

    with connect(host, start=False) as client:
        return list(client.call(client.host.ListZones, ListZonesRequest(all=True), timeout_s=ZONED_TIMEOUT_S).zones)


def _ends(walk: Walk, found: Candidates) -> None:
    found.left_to_shell = "files"
    found.words |= {f"{zone.name}:": zone.state for zone in _list_zones(walk.host)}


def _networks(walk: Walk, found: Candidates) -> None:
    from runtime.host.api.host_pb2 import ListNetworksRequest
    from runtime.host.client import connect

    with connect(walk.host, start=False) as client:
        listed = client.call(client.host.ListNetworks, ListNetworksRequest(), timeout_s=ZONED_TIMEOUT_S).networks
    found.words |= {network.name: ", ".join(network.zones) for network in listed if network.shared}


def _images(walk: Walk, found: Candidates) -> None:
    """Names of the store as `zone image ls` shows them, and recipes."""
    from pipeline.images.names import shown_name
    from pipeline.recipe import IMAGES, names
    from pipeline.store import Store

    found.words |= {f"recipe:{name}": "" for name in names(IMAGES)}
    found.words |= {shown_name(tag): "" for tag in sorted(Store().tags())}


def _bundles(walk: Walk, found: Candidates) -> None:
    from pipeline.bundle.manifest import TAG_PREFIX
    from pipeline.store import Store

    found.words |= {tag.removeprefix(TAG_PREFIX): "" for tag in sorted(Store().tags()) if tag.startswith(TAG_PREFIX)}


def _capabilities(walk: Walk, found: Candidates) -> None:
    from pipeline.bundle.capabilities import ALL, EVERY_CAPABILITY

    found.words |= dict.fromkeys((*EVERY_CAPABILITY, ALL), "")


def _limits(walk: Walk, found: Candidates) -> None:
    from pipeline.bundle.limits import LIMITS

    found.words |= {f"{file}=": "" for file in LIMITS}


def _rlimits(walk: Walk, found: Candidates) -> None:
    from pipeline.bundle.limits import RLIMITS

    found.words |= {f"{name}=": "" for name in RLIMITS}


def _fixed(*words: str) -> Callable[[Walk, Candidates], None]:
    def offer(walk: Walk, found: Candidates) -> None:
        found.words |= dict.fromkeys(words, "")

    return offer


_KINDS: dict[str, Callable[[Walk, Candidates], None]] = {
    "zones": _zones,
    "ends": _ends,
    "networks": _networks,
    "images": _images,
    "bundles": _bundles,
    "hosts": _fixed("xen", "lab", "ssh://", "tls://", "unix:"),
    "filters": _fixed("name=", "state=", "image=", "label=", "exited=", "health=", "network="),
    "signals": _fixed(*sorted(one.name.removeprefix("SIG") for one in signal.Signals)),
    "capabilities": _capabilities,
    "limits": _limits,
    "rlimits": _rlimits,
    "security": _fixed("seccomp=", "no-new-privileges"),
    "restarts": _fixed("no", "on-failure", "always", "unless-stopped"),
}
