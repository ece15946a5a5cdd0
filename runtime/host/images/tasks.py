"""The image tasks that are under way: a child process each, shared by all who ask for the same.

A child is the leader of a process group of its own. It is ended, with whatever it has started, when the last who
waits for it leaves; it ends itself where zoned dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.jsonmodel import from_json, to_json
from pipeline.store.workshop import Workshop
from runtime.host.images.account import account_of
from runtime.host.images.errors import ChildDied, ImageFault
from runtime.host.images.model import Assembled, AssembleWork, Packed, Progress, Result, Work

log = logging.getLogger(__name__)

AT_ONCE = 4  # children; further tasks wait
LINE_MAX_BYTES = 4 << 20
STDERR_KEPT_BYTES = 4096
TERM_WAIT_S = 3.0
COMMAND = (sys.executable, "-m", "runtime.host.images.child")
PASSED_ON = ("PATH", "LANG", "TZ", "SSL_CERT_FILE", "ZONEWRIGHT_CONFIG", "http_proxy", "https_proxy", "no_proxy")


class ImageTasks:
    """Children that work in one store.

    command: what a child is started by.
    """

    def __init__(self, store: Path, *, command: Sequence[str] = COMMAND) -> None:
        self._store, self._command = store, tuple(command)
        self._tasks: dict[Work, _Task] = {}  # that may be joined
        self._runners: set[asyncio.Task[Result]] = set()  # and those that are being ended
        self._slots = asyncio.Semaphore(AT_ONCE)

    def runners(self) -> list[asyncio.Task[Result]]:
        """What is under way."""
        return list(self._runners)

    async def follow(self, work: Work) -> AsyncGenerator[Progress | Result, None]:
        """Do something, or join those for whom it is being done: its latest progress, then its result.

        To leave it, close the iterator (`aclose`); the last one's leaving ends the work.
        Raises:  ImageFault, ChildDied.
        """
        task = self._tasks.get(work)
        if task is None:
            task = self._tasks[work] = _Task()
            task.runner = asyncio.create_task(self._run(work, task))
            self._runners.add(task.runner)
            task.runner.add_done_callback(self._runners.discard)
        task.waiters += 1
        try:
            async for progress in task.progress():
                yield progress
            yield await asyncio.shield(task.runner)
        finally:
            task.waiters -= 1
            if not task.waiters and not task.runner.done():
                self._leave(work, task)  # whoever asks for the same from now on gets a child of their own
                task.runner.cancel()
                await asyncio.wait([task.runner])

    async def do(self, work: Work) -> Result:
        """`follow` for whoever wants the result alone."""
        async with contextlib.aclosing(self.follow(work)) as news:
            async for found in news:
                if not isinstance(found, Progress):
                    return found
        raise AssertionError("a task ends with its result or an error")

    async def close(self) -> None:
        """End all."""
        runners = self.runners()
        for runner in runners:
            runner.cancel()
        if runners:
            await asyncio.wait(runners)

    # -- one child -----------------------------------------------------------------------------------------------------

    def _leave(self, work: Work, task: _Task) -> None:
        if self._tasks.get(work) is task:
            del self._tasks[work]

    async def _run(self, work: Work, task: _Task) -> Result:
        try:
            async with self._slots:
                return await self._child(work, task)
        finally:
            self._leave(work, task)
            task.ring()

    async def _child(self, work: Work, task: _Task) -> Result:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_MAX_BYTES,
            start_new_session=True,
            env=_environment(),
            **_identity(self._store),
        )
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        errors = asyncio.create_task(_tail(process.stderr))
        last: dict[str, Any] = {}
        try:
            request = {"store": str(self._store), "kind": type(work).__name__, "work": to_json(work)}
            process.stdin.write(json.dumps(request).encode() + b"\n")
            async for line in process.stdout:
                last = json.loads(line)
                if "progress" in last:
                    task.tell(from_json(Progress, last["progress"]))
            await process.wait()
            said = await errors
        finally:
            await _end(process)
            errors.cancel()
            if process.returncode and process.returncode < 0:  # it could not clear away what it was making
                await asyncio.to_thread(_sweep, self._store)
        if "ok" in last:
            if isinstance(work, AssembleWork):
                return from_json(Assembled, last["ok"])
            return from_json(Packed, last["ok"])
        if "error" in last:
            raise _fault(last["error"])
        got = f"code {process.returncode}" + (f": {said}" if said else "")
        raise ChildDied("image task", expected="a result", got=got, temporary=True)


class _Task:
    """What those who wait for one task share."""

    runner: asyncio.Task[Result]

    def __init__(self) -> None:
        self.waiters = 0
        self._latest, self._version = Progress(), 1
        self._bell = asyncio.Event()

    def tell(self, progress: Progress) -> None:
        """It is further."""
        self._latest, self._version = progress, self._version + 1
        self.ring()

    def ring(self) -> None:
        """Wake whoever waits."""
        self._bell.set()
        self._bell = asyncio.Event()

    async def progress(self) -> AsyncIterator[Progress]:
        """The latest state whenever there is a new one, until the end. Who is slow misses some."""
        seen = 0
        while True:
            bell = self._bell
            if self._version > seen:
                seen = self._version
                yield self._latest
            elif self.runner.done():
                return
            else:
                ring = asyncio.create_task(bell.wait())
                try:
                    await asyncio.wait([ring, self.runner], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    ring.cancel()


def _sweep(store: Path) -> None:
    with contextlib.suppress(OSError):  # the next who opens the store does it
        Workshop(store / "tmp", store / "locks" / "tmp").sweep()


def _environment() -> dict[str, str]:
    names = (*PASSED_ON, *(name.upper() for name in PASSED_ON))
    passed = {name: os.environ[name] for name in names if name in os.environ}
    if "SSL_CERT_FILE" not in passed and (bundle := certificates()):
        passed["SSL_CERT_FILE"] = bundle
    return passed | {"HOME": "/nonexistent", "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}


def certificates() -> str:
    """A file of certificates to believe where the system has none: that of the package certifi, if it is there."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and os.listdir(paths.capath)):
        return ""
    try:
        import certifi
    except ImportError:
        return ""
    return certifi.where()


def _identity(store: Path) -> dict[str, Any]:
    account = account_of(store)
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


async def _tail(stream: asyncio.StreamReader) -> str:
    """The last line a child wrote to stderr; all of it goes to zoned's own log."""
    kept = b""
    while data := await stream.read(STDERR_KEPT_BYTES):
        kept = (kept + data)[-STDERR_KEPT_BYTES:]
    lines = kept.decode("utf-8", "replace").strip().splitlines()
    for line in lines:
        log.warning("image task: %s", line)
    return lines[-1][:200] if lines else ""


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a child and what it has started, if it has not ended."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(asyncio.shield(process.wait()), TERM_WAIT_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _fault(document: dict[str, Any]) -> ImageFault:
    text = {key: str(document.get(key, "")) for key in ("subject", "expected", "got", "hint")}
    fault = ImageFault(
        text["subject"],
        expected=text["expected"],
        got=text["got"],
        hint=text["hint"],
        temporary=bool(document.get("temporary")),
    )
    fault.kind = str(document.get("kind", ""))
    return fault
