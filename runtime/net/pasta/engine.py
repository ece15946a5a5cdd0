"""The `pasta` engine as its starter sees it: the keeper's process, asked by a control socket as any engine is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from runtime.net import child, netns
from runtime.net.engine.flows import Flow
from runtime.net.engine.model import EngineConfig, dump
from runtime.net.engine.proxy import PreparedProxy, ProxyHandle
from runtime.net.errors import EngineFault
from runtime.net.pasta.version import find_pasta

ENTRY = "from runtime.net.pasta.keeper import main"  # in a keeper's command line, see engine.proxy.ENTRY
CLONE_NEWPID = 0x20000000  # linux/sched.h


class PastaHandle(ProxyHandle):
    """A running keeper."""

    INSIDE = ()

    def settle(self, zone: str) -> None:
        """Have pasta run for the zone and the ports it was given. Raises EngineFault."""
        self._ask({"op": "settle", "zone": zone})

    def flows(self, zone: str) -> list[Flow]:
        """Raises EngineFault: pasta does not tell."""
        subject = f"network engine of {self._whose}"
        expected = "one that tells what passes"
        raise EngineFault(
            subject,
            expected=expected,
            got="pasta",
            hint="the engine splice does; zone net capture shows both's packets",
        )


class PreparedPasta(PreparedProxy):
    """The keeper before it knows its config."""

    def __init__(self, process: subprocess.Popen[bytes], control: Path, log_file: Path, program: str) -> None:
        super().__init__(process, control, log_file)
        self._program = program

    def start(self, config: EngineConfig) -> PastaHandle:
        """Send the config."""
        document = {"config": json.loads(dump(config)), "program": self._program}
        child.tell(self._child, json.dumps(document))  # wait_ready says why, if it has ended
        return PastaHandle(config.whose, self.pid, self.start_time, self._control, self._log_file, self._child)


class PastaEngine:
    """Starts keepers in the network namespace of the calling thread, which is where pasta's outer sockets live."""

    name = "pasta"

    def __init__(self, find: Callable[[], str] = find_pasta) -> None:
        """find: the program, or EngineFault."""
        self._find = find

    def look(self) -> None:
        """Raises EngineFault where this host has no pasta that will do."""
        self._find()

    def prepare(self, inherited: tuple[int, ...], control: Path, log_file: Path) -> PreparedPasta:
        """Start the process; it waits for its config. Raises OSError, EngineFault."""
        program = self._find()

        def start() -> subprocess.Popen[bytes]:
            with open(log_file, "ab", buffering=0) as log:
                return child.start(child.code_of(ENTRY), inherited, log)

        # A thread's own children begin the new process namespace, not the other threads' (pid_namespaces(7)).
        process = netns.in_thread(lambda: netns.call("unshare", CLONE_NEWPID), start)
        return PreparedPasta(process, control, log_file, program)

    def adopt(self, whose: str, pid: int, start_time: int, control: Path, log_file: Path) -> PastaHandle:
        """A handle on a keeper that another process started."""
        return PastaHandle(whose, pid, start_time, control, log_file)
