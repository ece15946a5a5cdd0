"""This terminal on one side, a process in a zone on the other: raw mode, window size, signals, and every byte.

Not a terminal: stdin, stdout and stderr are pipes, passed on as they are. On a terminal Ctrl-] leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.errors import SentenceError
from runtime.host.cli.terminal import not_shown, window_size

LEAVE = b"\x1d"
PIECE_BYTES = 32 << 10
PIECES_AHEAD = 8
# As docker does: a process that ignores what it is sent must not hold the command that waits for it.
SIGNALS_UNTIL_LEFT = 3
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """A context in which a terminal hands over every byte as it is typed; as it was before, afterwards."""
    import termios
    import tty

    saved = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSADRAIN)
        yield
    finally:
        with contextlib.suppress(termios.error):  # it has gone, which may be why we end
            termios.tcsetattr(fd, termios.TCSADRAIN, saved)


class Reader:
    """A thread that reads a file descriptor, of whatever kind, no further ahead than a few pieces.

    Effects: the file descriptor is left as it is; `stop` ends the thread, also while it waits for a terminal.
    """

    def __init__(self, fd: int, queue: asyncio.Queue[bytes]) -> None:
        self._fd, self._queue = fd, queue
        self._loop = asyncio.get_running_loop()
        self._woken, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._woken], [], [])
            if self._woken in ready:
                return
            try:
                data = os.read(self._fd, PIECE_BYTES)
            except OSError:  # a terminal that went away
                data = b""
            putting = asyncio.run_coroutine_threadsafe(self._queue.put(data), self._loop)
            try:
                putting.result()
            except BaseException:  # cancelled: nobody reads any more
                return
            if not data:
                return

    def stop(self) -> None:
        """No further piece; returns at once."""
        os.write(self._wake, b"x")


class Writer:
    """A thread that writes, one piece after the other: a slow reader of ours holds up who awaits that, and no signals.

    Nobody joins it: where the reader has stopped reading it stays in its write, and must not keep the command.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: queue.SimpleQueue[tuple[int, bytes, asyncio.Future[None]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._write, daemon=True).start()

    async def write(self, fd: int, data: bytes) -> None:
        """Until all of it is written. Raises BrokenPipeError, NotShown."""
        written = self._loop.create_future()
        self._pieces.put((fd, data, written))
        await written

    def stop(self) -> None:
        """No further piece; returns at once."""
        self._pieces.put(None)

    def _write(self) -> None:
        while piece := self._pieces.get():
            fd, data, written = piece
            failed: Exception | None = None
            try:
                write_out(fd, data)
            except (OSError, SentenceError) as error:
                failed = error
            try:
                self._loop.call_soon_threadsafe(_settle, written, failed)
            except RuntimeError:  # the loop has been closed: nobody waits any more
                return


def _settle(written: asyncio.Future[None], failed: Exception | None) -> None:
    if written.done():
        return  # cancelled
    if failed is None:
        written.set_result(None)
    else:
        written.set_exception(failed)


class Session:
    """One process of a zone joined to this command's own files.

    start:   the first message. messages: the generated module, so that this one costs nothing to import.
    stdin:   pass ours on. tty: ours is a terminal, and so is the process's.
    closed:  without our stdin the process has none: it reads the end of file at once.
    """

    def __init__(self, stream: Any, start: Any, messages: Any, *, stdin: bool, tty: bool, closed: bool) -> None:
        self._stream, self._start, self._messages = stream, start, messages
        self._stdin, self._tty = stdin, tty
        self._outgoing: asyncio.Queue[Any] = asyncio.Queue(PIECES_AHEAD)
        self._urgent: asyncio.Queue[Any] = asyncio.Queue()
        if closed and not stdin and not start.detach:
            self._outgoing.put_nowait(self._input(close_stdin=True))
        self._left = asyncio.Event()
        self._signals = 0

    async def run(self) -> Any:
        """Until the process ends: its ExitStatus; None when it was left by Ctrl-], or detached.

        Left by signals that did not end it, it counts as failed: that is no end anybody wanted.
        """
        with contextlib.ExitStack() as stack:
            if self._tty and self._stdin and os.isatty(0):
                stack.enter_context(raw_mode(0))
            for number, handler in self._handlers().items():
                asyncio.get_running_loop().add_signal_handler(number, handler)
                stack.callback(asyncio.get_running_loop().remove_signal_handler, number)
            await self._stream.send_message(self._input(start=self._start), end=self._start.detach)
            return await self._joined()

    async def _joined(self) -> Any:
        tasks = {asyncio.ensure_future(self._send()), asyncio.ensure_future(self._left.wait())}
        receiving = asyncio.ensure_future(self._receive())
        reader = None
        if self._stdin:
            pieces: asyncio.Queue[bytes] = asyncio.Queue(PIECES_AHEAD)
            reader = Reader(0, pieces)
            tasks.add(asyncio.ensure_future(self._feed(pieces)))
        waiting = {receiving, *tasks}
        try:
            while not receiving.done() and not self._left.is_set():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {receiving}:
                    task.result()
            if receiving.done():
                return receiving.result()
            return self._messages.ExitStatus(code=1) if self._signals >= SIGNALS_UNTIL_LEFT else None
        finally:
            if reader is not None:
                reader.stop()
            for task in (*tasks, receiving):
                task.cancel()
            await asyncio.gather(*tasks, receiving, return_exceptions=True)

    # -- to the zone -----------------------------------------------------------------------------------------------

    def _input(self, **fields: Any) -> Any:
        return self._messages.ProcessInput(**fields)

    async def _feed(self, pieces: asyncio.Queue[bytes]) -> None:
        while data := await pieces.get():
            if self._tty:
                data, leave, _ = data.partition(LEAVE)
                if leave:
                    if data:
                        await self._outgoing.put(self._input(stdin=data))
                    self._left.set()
                    return
            await self._outgoing.put(self._input(stdin=data))
        await self._outgoing.put(self._input(close_stdin=True))

    async def _send(self) -> None:
        """One sender: a message is several frames, which must not mix. Signals and sizes overtake waiting input."""
        taking: set[asyncio.Task[Any]] = set()
        try:
            while True:
                if self._urgent.empty() and self._outgoing.empty():
                    taking = {asyncio.ensure_future(queue.get()) for queue in (self._urgent, self._outgoing)}
                    done, rest = await asyncio.wait(taking, return_when=asyncio.FIRST_COMPLETED)
                    for task in rest:
                        task.cancel()
                    for message in sorted((task.result() for task in done), key=_is_input):
                        await self._stream.send_message(message)
                else:
                    queue = self._outgoing if self._urgent.empty() else self._urgent
                    await self._stream.send_message(queue.get_nowait())
        finally:
            for task in taking:
                task.cancel()

    def _handlers(self) -> dict[int, Callable[[], None]]:
        if self._start.detach:  # there is no process to have them yet: they end this command, and the start with it
            return {}
        if not self._tty:
            # What was ignored as we were started (nohup, a shell's background) reaches no process through us either.
            wanted = (number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN)
            return {number: self._forwarder(number) for number in wanted}
        # Ctrl-C is a byte for the zone's terminal; what others send ends this command, with the terminal as it was.
        return {signal.SIGWINCH: self._resize}

    def _forwarder(self, number: int) -> Callable[[], None]:
        def forward() -> None:
            self._signals += number in (signal.SIGINT, signal.SIGTERM)
            if self._signals >= SIGNALS_UNTIL_LEFT:
                self._left.set()
                if select.select([], [2], [], 0)[1]:  # or whoever does not read it would hold us here
                    sys.stderr.write(f"the process did not end at {SIGNALS_UNTIL_LEFT} signals; left\n")
            self._urgent.put_nowait(self._input(signal=number))

        return forward

    def _resize(self) -> None:
        rows, columns = window_size()
        self._urgent.put_nowait(self._input(resize=self._messages.TerminalSize(rows=rows, columns=columns)))

    # -- from the zone ---------------------------------------------------------------------------------------------

    async def _receive(self) -> Any:
        """Write what comes; the thread of its own keeps Ctrl-] and signals alive where the reader of ours is slow."""
        from grpclib.exceptions import StreamTerminatedError

        writer = Writer()
        try:
            async for message in self._stream:
                kind = message.WhichOneof("what")
                if kind == "exit":
                    return message.exit
                if kind in ("stdout", "stderr"):
                    await writer.write(1 if kind == "stdout" else 2, getattr(message, kind))
        finally:
            writer.stop()
        if self._start.detach:
            return None
        # Leaving the call by this is how grpclib comes to look at the status it was ended with.
        raise StreamTerminatedError("it ended without an exit")


def _is_input(message: Any) -> bool:
    return bool(message.WhichOneof("what") in ("stdin", "close_stdin"))


def write_out(fd: int, data: bytes) -> None:
    """Write all of it onto our own stdout (1) or stderr (2). Raises BrokenPipeError, NotShown."""
    try:
        write_all(fd, data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise not_shown("stdout" if fd == 1 else "stderr", error) from error


def write_all(fd: int, data: bytes) -> None:
    """Write all of it. Raises BrokenPipeError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
