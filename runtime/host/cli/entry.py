"""One run of the `zone` command, and what its exit code is.

0; the workload's own code through run, exec, attach and wait (128 + n for signal n); 1 for an error said in one
sentence, but 125 where run fails itself, 126 and 127 where the zone cannot run, or has not, the command;
2 for a wrong command line; 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP, 141 where nobody reads the output any more.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence

from pipeline.errors import SentenceError
from pipeline.signals import exit_on_signals
from runtime.host.cli.commands import parser

OWN_FAILURE = 125
NOBODY_READS = 141  # 128 + SIGPIPE, which would have ended a program that does not ignore it


class NotText(SentenceError):
    """A word that cannot be said to zoned."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _open_standard_files()
    arguments = parser().parse_args(argv)
    exit_on_signals()
    if arguments.verbose:
        import logging  # costs a cache hit 5 ms; warnings are shown without it, by logging's last resort

        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
    try:
        return int(arguments.run(arguments) or 0)
    except SentenceError as error:
        return _failed(error, arguments)
    except UnicodeEncodeError as error:  # of a word, a file or a variable we were given, as no message has others
        return _failed(NotText(ascii(error.object)[:80], expected="text in UTF-8", got="other bytes"), arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS


def _failed(error: SentenceError, arguments: Namespace) -> int:
    sys.stderr.write(f"error: {error}\n")
    return int(getattr(error, "exit_code", getattr(arguments, "failure_code", 1)))


def _open_standard_files() -> None:
    """Have those that whoever started us has closed lead nowhere: else the next file that is opened is one of them."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free, which is this
            setattr(sys, name, open(fd, "w" if fd else "r", closefd=False))  # noqa: SIM115 - for all of this run
