"""The host's end of the agent channel, one thing at a time: what a test needs to talk to a zone's agent."""

from __future__ import annotations

import json
import os
import secrets
import select
import time
from typing import Any

from runtime.init.channel import frames
from runtime.init.channel.credit import WINDOW_BYTES

TIMEOUT_S = 60.0


class AgentError(Exception):
    """The agent's refusal."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(f"{reason}: {sentence}")
        self.reason, self.sentence = reason, sentence


class Stream:
    """What has come on one stream. While `hold` is set no credit is given for what comes."""

    def __init__(self, host: AgentHost, number: int) -> None:
        self._host, self.number = host, number
        self.data: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self.ended: set[int] = set()
        self.events: list[dict[str, Any]] = []
        self.result: dict[str, Any] | None = None
        self.may_send = WINDOW_BYTES
        self.hold = False
        self.owed = {1: 0, 2: 0}

    def write(self, data: bytes, fd: int = 0) -> None:
        """Send bytes, waiting for credit."""
        at = 0
        while at < len(data):
            self._host.until(lambda: self.may_send > 0 or self.result is not None)
            if self.result is not None:
                return
            piece = data[at : at + self.may_send]
            at += len(piece)
            self.may_send -= len(piece)
            self._host.send(frames.data(self.number, fd, piece))

    def eof(self, fd: int = 0) -> None:
        """No more bytes."""
        self._host.send(frames.frame(frames.EOF, self.number, b"", fd))

    def event(self, **value: object) -> None:
        """A JSON event."""
        self._host.send(frames.message(frames.EVENT, self.number, json.dumps(value).encode()))

    def cancel(self) -> None:
        """Wait for it no longer."""
        self._host.send(frames.frame(frames.CANCEL, self.number))

    def release(self) -> None:
        """Give the credit that was held back, and hold no more."""
        self.hold = False
        for fd, count in self.owed.items():
            if count:
                self.owed[fd] = 0
                self._host.send(frames.credit(self.number, fd, count))

    def wait(self, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """The result. Raises AgentError."""
        self._host.until(lambda: self.result is not None, timeout_s)
        assert self.result is not None
        if "error" in self.result:
            raise AgentError(**self.result["error"])
        return self.result["ok"]


class AgentHost:
    """One session at a time on a descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_blocking(fd, False)
        self.idle: Any = lambda: None  # called before each wait: lets an agent in the same thread go on
        self._out, self._busy = bytearray(), False
        self._new_session()

    def close(self) -> None:
        """The descriptor too; done already, it does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def _new_session(self) -> None:
        self._parser = frames.Parser(hunting=True)
        self._given = self._number = 0
        self._session = secrets.token_hex(8)
        self.greeting: dict[str, Any] | None = None
        self.notes: list[dict[str, Any]] = []
        self.streams: dict[int, Stream] = {}

    def hello(self, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Begin a session; what the agent says of itself."""
        self._new_session()
        self.send(frames.host_greeting(json.dumps({"version": 1, "session": self._session}).encode()))
        self.until(lambda: self.greeting is not None, timeout_s)
        assert self.greeting is not None
        return self.greeting

    def open(self, method: str, **params: object) -> Stream:
        """A new stream."""
        self._number += 1
        stream = self.streams[self._number] = Stream(self, self._number)
        request = json.dumps({"method": method, "params": params}).encode()
        self.send(frames.message(frames.OPEN, self._number, request))
        return stream

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """A new stream's result. Raises AgentError."""
        return self.open(method, **params).wait()

    def run(
        self, argv: list[str], container: str | None = "main", data: bytes | None = None, **process: object
    ) -> Stream:
        """Execute something and wait for its end; `data` is what it reads, and then the end of it."""
        stream = self.open("exec", container=container, process={"argv": argv, **process})
        if data is not None:
            stream.write(data)
        stream.eof()
        stream.wait()
        return stream

    def note(self, event: str, timeout_s: float = TIMEOUT_S, **fields: object) -> dict[str, Any]:
        """The first note of this kind with these fields, waited for."""

        def found() -> list[dict[str, Any]]:
            return [note for note in self.notes if note["event"] == event and fields.items() <= note.items()]

        self.until(lambda: bool(found()), timeout_s)
        return found()[0]

    def until_output(self, container: str, fd: int, count: int) -> None:
        """Wait until the agent has read so many bytes of a container."""
        while True:
            for one in self.call("list")["containers"]:
                if one["id"] == container and one["output"][str(fd)][1] >= count:
                    return

    def until(self, condition: Any, timeout_s: float = TIMEOUT_S) -> None:
        """Take what comes until the condition holds. Raises TimeoutError."""
        end = time.monotonic() + timeout_s
        while not condition():
            self.take(max(0.0, end - time.monotonic()))
            if time.monotonic() >= end and not condition():
                raise TimeoutError(f"the agent: expected something within {timeout_s} s; notes {self.notes[-5:]}")

    def take(self, timeout_s: float) -> bool:
        """What there is, at most once."""
        self.idle()
        ready, _, _ = select.select([self.fd], [], [], timeout_s)
        if not ready:
            return False
        # What the frames make us send waits until all are seen: while it is sent, further ones come.
        nested, self._busy = self._busy, True
        try:
            for kind, fd, number, payload in self._parser.feed(os.read(self.fd, 65536)):
                self._frame(kind, fd, number, payload)
        finally:
            self._busy = nested
        if self.greeting is not None and self._parser.taken_bytes - self._given >= 1024:
            self._give()
        self.send(b"")
        return True

    def send(self, data: bytes) -> None:
        """Write, taking what comes meanwhile: both ends may be full. What that makes us send stands behind it."""
        self._out += data
        if self._busy:
            return
        self._busy = True
        try:
            while self._out:
                self.idle()
                readable, writable, _ = select.select([self.fd], [self.fd], [], TIMEOUT_S)
                assert readable or writable, "the agent neither reads nor writes"
                if readable:
                    self.take(0)
                if writable:
                    del self._out[: os.write(self.fd, self._out)]
        finally:
            self._busy = False

    def _give(self) -> None:
        count, self._given = self._parser.taken_bytes - self._given, self._parser.taken_bytes
        self.send(frames.credit(0, 0, count))

    def _frame(self, kind: int, fd: int, number: int, payload: bytes) -> None:
        assert kind != frames.LOST, payload
        if kind == frames.HELLO:
            greeting = json.loads(payload)
            if greeting["session"] == self._session:
                self.greeting = greeting
                self._given = 0
                self.send(frames.credit(0, 0, frames.LINK_WINDOW_BYTES))
            return
        if self.greeting is None:
            return
        if kind == frames.NOTE:
            self.notes.append(json.loads(payload))
            return
        assert number in self.streams, f"a frame of an unknown stream {number}"
        stream = self.streams[number]
        assert stream.result is None, f"stream {number} goes on behind its result {stream.result}"
        if kind == frames.DATA:
            assert fd not in stream.ended, f"bytes of descriptor {fd} behind its end"
            stream.data[fd] += payload
            stream.owed[fd] += len(payload)
            if not stream.hold and stream.owed[fd] >= WINDOW_BYTES // 4:
                stream.release()
        elif kind == frames.EOF:
            stream.ended.add(fd)
            if not stream.hold:
                stream.release()
        elif kind == frames.EVENT:
            stream.events.append(json.loads(payload))
        elif kind == frames.RESULT:
            stream.result = json.loads(payload)
        elif kind == frames.CREDIT:
            stream.may_send += frames.credit_of(payload)
