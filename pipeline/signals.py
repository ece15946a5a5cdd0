"""SIGTERM as a way to end, like Ctrl-C: children are ended, temporary files removed, the exit code says which."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import NoReturn


def exit_on_sigterm() -> None:
    """From now on SIGTERM raises SystemExit(143) in the main thread. For commands; does nothing in other threads."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # one is enough: a second must not end the clearing up
    raise SystemExit(128 + number)
