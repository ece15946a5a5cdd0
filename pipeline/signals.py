"""SIGTERM and SIGHUP as ways to end, like Ctrl-C.

Children are ended, temporary files removed, the exit code says which it was.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import NoReturn


def exit_on_signals() -> None:
    """From now on SIGTERM and SIGHUP raise SystemExit(128 + N) in the main thread; what nohup ignores stays ignored.

    For commands; does nothing in other threads.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # one is enough: a second must not end the clearing up
    raise SystemExit(128 + number)
