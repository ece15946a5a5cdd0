"""The engine's control socket where many ask at once, and a zone's leave where the engine does not answer."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.net.engine import control, processes
from runtime.net.engine.control import ControlServer, ask
from runtime.net.engine.loop import Loop
from runtime.net.engine.proxy import ProxyHandle
from runtime.net.errors import EngineFault, SilentEngine
from runtime.net.teardown import teardown


@contextlib.contextmanager
def controlled(path: str, backlog: int) -> Iterator[Callable[[], None]]:
    """A control socket that says yes to all; what it gives has it served from then on."""
    loop = Loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(backlog)

        def operate(request: object, passed: object, back: object) -> dict[str, object]:
            if request == {"op": "stop"}:
                loop.stop()
            return {}

        ControlServer(loop, listener, operate)
        thread = threading.Thread(target=loop.run, daemon=True)
        yield thread.start
        ask(path, {"op": "stop"}, timeout_s=20)
        thread.join(20)


def test_more_clients_than_there_is_room_for_wait_and_are_answered(tmp_path: Path) -> None:
    path = str(tmp_path / "control")
    with controlled(path, 0) as serve, contextlib.ExitStack() as clients, ThreadPoolExecutor(12) as threads:
        serve()
        for _ in range(control._CLIENTS):
            client = clients.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            client.connect(path)
            client.send(b"{}")
            assert client.recv(100) == b"{}"
        asked = [threads.submit(ask, path, {}, timeout_s=20) for _ in range(12)]
        clients.close()
        assert [answer.result(20) for answer in asked] == [{}] * 12


def test_control_socket_without_room_is_waited_for_and_no_longer(tmp_path: Path) -> None:
    path = str(tmp_path / "control")
    with contextlib.ExitStack() as stack:
        serve = stack.enter_context(controlled(path, 0))
        threads = stack.enter_context(ThreadPoolExecutor(1))
        stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)).connect(path)
        with pytest.raises(TimeoutError):
            ask(path, {}, timeout_s=0.01)
        later = threads.submit(ask, path, {}, timeout_s=20)
        serve()
        assert later.result(20) == {}


def answer(listener: socket.socket, text: bytes) -> None:
    """Say this to one client."""
    with listener.accept()[0] as client:
        client.recv(1000)
        client.send(text)


MEMBER = {"kind": "net.member", "network": "back", "zone": "web", "netns": "zw-@none", "limit": "limit2"}


@pytest.mark.parametrize("how", ["gone", "ended", "ends"])
def test_zone_of_an_engine_that_does_not_run_has_been_let_go_of(tmp_path: Path, how: str) -> None:
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        if how != "gone":
            listener.bind(str(path))
        if how == "ends":
            listener.listen()

            def end() -> None:
                client = listener.accept()[0]
                listener.close()
                client.close()

            threading.Thread(target=end).start()
        teardown([{**MEMBER, "control": str(path)}])


@pytest.mark.parametrize("how", ["hangs", "nonsense"])
def test_zone_of_an_engine_that_may_not_have_heard_it_has_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("runtime.net.teardown._LEAVE_TIMEOUT_S", 0.05 if how == "hangs" else 20)
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()

        if how == "nonsense":
            threading.Thread(target=answer, args=[listener, b"nonsense"]).start()
        with pytest.raises(EngineFault, match="expected it to let go of zone web, got") as caught:
            teardown([{**MEMBER, "control": str(path)}])
        assert caught.value.temporary


def handle(path: Path, child: subprocess.Popen[bytes] | None = None) -> ProxyHandle:
    """An engine that is asked there: a child, or this process."""
    pid = os.getpid() if child is None else child.pid
    return ProxyHandle("zone web", pid, processes.start_time_of(pid) or 0, path, path.with_name("log"), child)


def test_engine_that_runs_and_gives_no_answer_is_told_from_one_that_cannot_be_asked(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with pytest.raises(EngineFault, match="no answer") as caught:
        handle(path).wait_ready(0.01)
    assert caught.type is EngineFault
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(SilentEngine, match="no answer"):
            handle(path).wait_ready(0.01)


def test_engine_that_has_ended_does_not_run_while_another_thread_waits_for_it(tmp_path: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        engine = handle(tmp_path / "control", child)
        assert engine.alive()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with child._waitpid_lock:  # type: ignore[attr-defined]
            assert not engine.alive()


def test_engine_that_ends_is_waited_for_its_sockets_are_closed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        hold = processes.hold

        def held_then_ends(pid: int, start_time: int) -> int | None:
            descriptor = hold(pid, start_time)
            child.send_signal(signal.SIGSYS)
            return descriptor

        def reset(*_: object, **__: object) -> None:
            raise ConnectionResetError

        monkeypatch.setattr(processes, "hold", held_then_ends)
        monkeypatch.setattr("runtime.net.engine.proxy._ENDING_S", 60.0)  # a busy machine takes its time to end one
        monkeypatch.setattr("runtime.net.child._ENDED_S", 60.0)
        monkeypatch.setattr("runtime.net.engine.proxy.ask", reset)
        with pytest.raises(EngineFault, match="it ended: killed for a system call") as caught:
            handle(tmp_path / "control", child).wait_ready(1)
        assert caught.type is EngineFault


def test_engine_that_resets_a_connection_and_runs_gave_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor_left(pid: int, start_time: int) -> int | None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(processes, "hold", no_descriptor_left)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as refusing:
        refusing.bind(str(tmp_path / "control"))
        with pytest.raises(EngineFault, match=r"no answer: .*refused"):
            handle(tmp_path / "control").wait_ready(1)


NESTED = b"[" * 30_000  # deeper than anybody reads


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (ProxyHandle.zones, b"nonsense"),
        (ProxyHandle.zones, NESTED),
        (ProxyHandle.zones, b"7"),
        (ProxyHandle.zones, b"{}"),
        (ProxyHandle.zones, b'{"zones": 7}'),
        (lambda engine: engine.counters("web"), b'{"counters": []}'),
        (lambda engine: engine.counters("web"), b'{"counters": {"syns": "many"}}'),
        (lambda engine: engine.flows("web"), b'{"flows": [1]}'),
        (lambda engine: engine.handback("web"), b'{"inside": 7}'),
        (lambda engine: engine.handback("web"), b'{"inside": [], "published": [1]}'),
    ],
)  # fmt: skip
def test_answer_that_says_nothing_to_anybody_is_an_engines_fault(
    tmp_path: Path, question: Callable[[ProxyHandle], object], text: bytes
) -> None:
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=answer, args=[listener, text]).start()
        with pytest.raises(EngineFault, match="network engine of zone web: expected"):
            question(handle(path))
