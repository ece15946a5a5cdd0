"""`zone cp`: files into a zone and out of it, by docker's rules for what a directory at either end means."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import stat
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import RuntimeFault
from runtime.host.cli.parsers import Parser, complete

EXAMPLES = """\
One end is ZONE:PATH, the other a path here (one with a colon in it begins with / or ./), or - for a tar archive on our
stdin or stdout. A directory that is there is copied into, under the source's name; one that is not there is made, and
becomes the copy. SRC/. is what lies in SRC. Files copied in are root's, unless -a keeps their owners; it keeps extended
attributes too: those of users, and on the way into a zone capabilities.

examples:
  zone cp nginx.conf web:/etc/nginx/nginx.conf
  zone cp site/. web:/var/www/html         what is in site, rather than site itself
  zone cp web:/var/log/nginx logs
  zone cp web:/etc - | tar -tv
  tar -c site | zone cp - web:/srv
"""
_ZONE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*):(.*)", re.DOTALL)
STDIN_BYTES = 256 << 10
# How zoned calls a fault that is the agent's answer, rather than want of one.
REFUSALS = ("AgentFault", "AgentRefused")


class CannotCopy(RuntimeFault):
    """A copy between two ends that do not fit each other."""


@dataclass(frozen=True)
class End:
    """One end. zone: "" for this machine. path: "-" with no zone is a tar archive on stdin or stdout."""

    zone: str
    path: str

    @property
    def stream(self) -> bool:
        return not self.zone and self.path == "-"

    @property
    def contents(self) -> bool:
        """Is it what lies in a directory, rather than the directory?"""
        return self.path.endswith("/.") or self.path == "."

    def __str__(self) -> str:
        return f"{self.zone}:{self.path}" if self.zone else self.path


def fill_cp(parser: Parser) -> None:
    """The arguments of `zone cp`."""
    parser.set_defaults(run=run)
    parser.epilog = EXAMPLES
    parser.add_argument("-a", "--archive", action="store_true", help="keep owners and attributes, as far as may be")
    parser.add_argument("-L", "--follow-link", action="store_true", help="copy what SRC leads to, where it is a link")
    complete(parser.add_argument("source", metavar="SRC", type=end, help="ZONE:PATH, PATH or -"), "ends")
    complete(parser.add_argument("target", metavar="DST", type=end, help="ZONE:PATH, PATH or -"), "ends")


def end(text: str) -> End:
    """Read an end."""
    match = _ZONE.fullmatch(text)
    return End(match[1], match[2] or "/") if match else End("", text)


def run(arguments: Namespace) -> None:
    """Copy. Raises CannotCopy, BadArchive."""
    from runtime.host.cli.link import meant_by
    from runtime.host.client import connect

    source, target = arguments.source, arguments.target
    if bool(source.zone) == bool(target.zone):
        where = "two" if source.zone else "none"
        raise CannotCopy("zone cp", expected="one end in a zone, such as web:/etc/hosts", got=where)
    with connect(arguments.host or "") as client, meant_by(client, source.zone or target.zone):
        if source.zone:
            _copy_out(client, source, target, arguments)
        else:
            _copy_in(client, source, target, arguments)


# -- out of a zone -----------------------------------------------------------------------------------------------------


def _copy_out(client: Any, source: End, target: End, arguments: Namespace) -> None:
    from runtime.host.cli.console import write_out
    from runtime.host.cli.untar import unpack

    if target.stream and os.isatty(1):
        raise CannotCopy("zone cp", expected="stdout to be a file or a pipe", got="a terminal", hint="… - | tar -tv")
    chunks = _archive(client, source, follow=arguments.follow_link)
    with contextlib.closing(chunks):
        if target.stream:
            for chunk in chunks:
                write_out(1, chunk)
            return
        left_out = unpack(
            chunks, Path(target.path), named=target.path, contents=source.contents, owners=arguments.archive
        )
    for line in left_out:
        sys.stderr.write(f"left out: {line}\n")


def _archive(client: Any, source: End, *, follow: bool = False) -> Any:
    """The archive of a path in a zone, in pieces; a generator."""
    from runtime.host.api.host_pb2 import CopyOutRequest

    path = source.path
    if follow and not source.contents and kind_of(client, source) == "directory":
        path = f"{path}/."
    answers = client.stream(client.host.CopyOut, CopyOutRequest(zone=source.zone, path=path))

    def pieces() -> Iterator[bytes]:
        with contextlib.closing(answers):
            for reply in answers:
                yield reply.tar

    return pieces()


def kind_of(client: Any, place: End) -> str:
    """What a path in a zone leads to: directory, file, or missing."""
    from runtime.host.faults import RemoteFault

    for path, kind in ((f"{place.path.rstrip('/')}/.", "directory"), (place.path, "file")):
        with contextlib.closing(_archive(client, End(place.zone, path))) as chunks:
            try:
                next(chunks, b"")
                return kind
            except RemoteFault as fault:
                if fault.kind not in REFUSALS:
                    raise
    return "missing"


# -- into a zone -------------------------------------------------------------------------------------------------------


def _copy_in(client: Any, source: End, target: End, arguments: Namespace) -> None:
    from runtime.host.api.host_pb2 import CopyInRequest

    if source.stream:
        directory, chunks = target.path, _stdin()
        if kind_of(client, target) != "directory":
            raise CannotCopy(str(target), expected="a directory that is there, for an archive", got="none")
    else:
        directory, chunks = _placed(client, source, target, arguments)

    def requests() -> Iterator[CopyInRequest]:
        yield CopyInRequest(zone=target.zone, path=directory)
        for chunk in chunks:
            yield CopyInRequest(tar=chunk)

    reply = client.send(client.host.CopyIn, requests())
    if reply.xattrs_left_out:
        sys.stderr.write(f"left out: {reply.xattrs_left_out} attributes, which the zone's file system does not take\n")


def _stdin() -> Iterator[bytes]:
    try:
        while data := os.read(0, STDIN_BYTES):
            yield data
    except OSError as error:
        raise CannotCopy("stdin", expected="a tar archive", got=error.strerror or str(error)) from error


def _placed(client: Any, source: End, target: End, arguments: Namespace) -> tuple[str, Iterator[bytes]]:
    """(directory of the zone, archive to unpack there)"""
    from runtime.host.cli.tar import archive_of

    path = Path(source.path)
    try:
        status = os.stat(path, follow_symlinks=bool(arguments.follow_link or source.contents))
    except OSError as error:
        raise CannotCopy(source.path, got=(error.strerror or str(error)).lower()) from error
    is_directory = stat.S_ISDIR(status.st_mode)
    there = kind_of(client, target)
    if is_directory and there == "file":
        raise CannotCopy(str(target), expected=f"a directory, as {source.path} is one", got="a file")
    if there == "missing" and target.path.endswith("/") and not is_directory:
        raise CannotCopy(str(target), expected="a directory that is there", got="none")
    if there == "directory":
        directory = target.path
        name = "." if is_directory and source.contents else os.path.basename(os.path.abspath(path))
    else:
        directory, name = posixpath.split(target.path.rstrip("/"))
    return directory or "/", archive_of(path, name, owners=arguments.archive, follow=arguments.follow_link)
