"""Become the agent: start the workload of the launch data at once, then listen to the host."""

import _socket
import gc
import posix

from runtime.init import abi, descriptors, kernel
from runtime.init.agent import core, device
from runtime.init.agent.container import Container
from runtime.init.agent.core import MAIN, Agent
from runtime.init.agent.stdio import size_of
from runtime.init.supervise import WATCHED


def run(data: dict[str, object], timings: list[tuple[str, float]], init: _socket.socket, link_fd: int | None) -> None:
    """Never returns: it ends once it has told pid 1 how the zone did, or by what it raises."""
    _run(data, timings, init, link_fd)
    posix._exit(0)


def _run(data: dict[str, object], timings: list[tuple[str, float]], init: _socket.socket, link_fd: int | None) -> None:
    # SIGPIPE, blocked, is an error of the write; processes are started with nothing blocked.
    kernel.block_signals((*WATCHED, abi.SIGPIPE))
    descriptors.allow()
    agent = Agent(data, timings, init, kernel.signal_fd((abi.SIGCHLD,)))
    extra = data["extra"] if isinstance(data["extra"], dict) else {}
    expected = link_fd is not None or device.announced()
    process = data["process"]
    if isinstance(process, dict):
        main = Container(
            agent,
            MAIN,
            main_spec(data, process, extra),
            stdin_open=extra.get("stdin_open") is True,
            healthcheck=extra.get("healthcheck"),
        )
        if not expected:
            # Nobody will read what is kept, so it is shown where the zone's other messages are.
            for fd, output in main.outputs.items():
                output.mirror = lambda piece, fd=fd: core.write_all(fd, piece)
        agent.start_main(main)
    else:
        agent.phase("workload")
    agent.session_began.append(lambda: _watch_ports(agent))
    agent.connect(device.path_of(extra), link_fd)
    gc.freeze()
    gc.enable()
    agent.loop.run()


def tell(outcome: str, timings: list[tuple[str, float]], path: str, link_fd: int | None) -> None:
    """In pid 1 of a zone whose boot failed: answer the host with how it ended, for as long as an agent would."""
    kernel.block_signals((*WATCHED, abi.SIGPIPE))
    # What an agent tells pid 1 is known here: nobody reads it.
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    agent = Agent({}, timings, theirs, kernel.signal_fd((abi.SIGCHLD,)))
    agent.end(outcome)
    agent.connect(path, link_fd)
    agent.loop.run()
    ours.close()


def main_spec(data: dict[str, object], process: dict[str, object], extra: dict[str, object]) -> dict[str, object]:
    """The container runtime's spec of the workload.

    extra.container of the launch data has further keys of the spec, and in `process` further keys of the process;
    extra.tty_size is [rows, columns].
    """
    given = extra.get("container")
    spec: dict[str, object] = dict(given) if isinstance(given, dict) else {}
    more = spec.get("process")
    whole = process | (more if isinstance(more, dict) else {})
    if process["tty"]:
        whole["size"] = list(size_of(extra.get("tty_size")))
    spec["process"] = whole
    spec["root"] = {"readonly": data["readonly_root"]}
    return spec


def _watch_ports(agent: Agent) -> None:
    from runtime.init.agent.ports import Ports

    # Replaced at the first session: who had none needs none.
    ports = Ports(agent)
    agent.session_began[0] = ports.begin
    ports.begin()
