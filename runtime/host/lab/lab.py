"""The lab's door: up, down, the way to its zoned, disks, ports."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.oci import Descriptor
from pipeline.progress import Progress
from pipeline.store import Store
from runtime.errors import RuntimeFault
from runtime.host.client.endpoint import TLS_PORT, Endpoint
from runtime.host.faults import CallTimeout, ConnectionLost, RemoteFault
from runtime.host.lab import channel, comeback, disks, keys, ports, process, qemu, statefile, zoned
from runtime.host.lab import snapshot as snapshots
from runtime.host.lab.config import LabConfig
from runtime.host.lab.console import attach_console, console_tail
from runtime.host.lab.errors import LabDown, LabFailed, LabOutdated, QmpError, SnapshotDamaged
from runtime.host.lab.parts import Parts, check_resources, gather
from runtime.host.lab.ports import HostPort
from runtime.host.lab.qmp import Qmp
from runtime.host.lab.reach import ADDRESS, data_directory, lab_endpoint, state_directory
from runtime.host.lab.state import STATE_DISK, Record, State

log = logging.getLogger(__name__)

# On a quiet machine 15 s and 1 s; what else runs there may slow emulation by ten.
COLD_TIMEOUT_S = 300.0
RESTORE_TIMEOUT_S = 60.0
QMP_TIMEOUT_S = 30.0
PING_TIMEOUT_S = 10.0
PING_SLICE_S = 2.0
# e2fsck on a large disk that was not unmounted takes its time.
CONFIGURE_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 60.0
COMING_BACK_TIMEOUT_S = 180.0  # a zoned that was started again, beside zones that keep dom0 from the processors
DEATH_TIMEOUT_S = 3.0
POLL_S = 0.02
QMP_LOCK = "qmp.lock"
DISKS_LOCK = "disks.lock"
COMEBACK_LOCK = "comeback.lock"


class Lab:
    """One lab: a configuration, a store, and a directory for what runs. Any number of processes may use it at once.

    name:       where its directory and its state disk are found; "": as its flavour is called.
    directory:  instead, for all of it.
    state_disk: what its zoned keeps over `down` and `up`.
    keeps:      one that runs keeps the settings it was started with, whatever this configuration says.
    """

    dom0_address = qemu.DOM0_ADDRESS

    def __init__(
        self, config: LabConfig, store: Store, *, name: str = "", directory: Path | None = None, keeps: bool = False
    ) -> None:
        self.config, self.store, self.keeps = config, store, keeps
        self.state = State(directory or state_directory(name or config.flavour))
        self.state_disk = (directory or data_directory(name or config.flavour)) / STATE_DISK
        self.snapshots = snapshots.Snapshots(store.root / "lab" / "snapshots")

    def running_config(self) -> LabConfig:
        """The settings the running lab was started with; the configured ones where none runs."""
        record = self._running()
        if record is None:
            return self.config
        return dataclasses.replace(
            self.config,
            memory_mib=record.memory_mib,
            dom0_memory_mib=record.dom0_memory_mib,
            vcpus=record.vcpus,
            ports=record.ports,
        )

    # -- up and down ---------------------------------------------------------------------------------------------------

    def up(self, progress: Progress | None = None) -> Record:
        """Make the lab ready, with the zones that come back; at once when it is.

        Raises:  LabUnfit, StateDiskInUse before any work; LabOutdated when zones run in a lab of other code or
                 settings; LabFailed.
        Effects: a QEMU that outlives this process; a snapshot in the store.
        """
        progress = progress or Progress()
        with self.state.lock():
            if self.keeps:  # another command may have started it meanwhile, with settings of its own
                self.config = self.running_config()
            parts = gather(self.config, self.store, mark=self.state.mark)
            record = self._running()
            if record is None or not self._serves(record, parts, progress):
                self._sweep()
                check_resources(self.config, self.store)
                statefile.check_unused(self.state_disk)
                record = self._start(parts, progress)
        if not record.returned:
            record = self._bring_back(record, progress)
        for rule in self.config.ports:
            *address, port, dom0_port = rule.split(":")
            self.forward(address[0] if address else "127.0.0.1", int(port), int(dom0_port))
        return record

    def down(self, *, wipe: bool = False) -> bool:
        """End the lab and all in it; False when there was none. Its state disk stays unless it is to be wiped.

        Raises:  StateDiskInUse where that is another lab's, too, which goes on with it.
        """
        ended = False
        if wipe or self.state.directory.exists():
            with self.state.lock():
                self._settle()
                ended = self._sweep()
                try:
                    if wipe:  # before the lock goes: a lab that is started then would have it already
                        statefile.wipe(self.state_disk)
                finally:
                    self.state.clear(keep_lock=False)
        return ended

    def is_up(self) -> bool:
        """Is there a lab that serves? A cheap look: its record and its process."""
        return self._running() is not None

    def status(self) -> dict[str, Any]:
        """What there is to know about the lab without changing it."""
        about: dict[str, Any] = {"host": "lab", "flavour": self.config.flavour, "directory": str(self.state.directory)}
        record = self._running()
        if record is None:
            return about | {"state": "starting" if process.marked(self.state.mark) else "down"}
        about |= {"state": "up", "pid": record.pid, "accel": record.accel, "vcpus": record.vcpus}
        about |= {"memory_mib": record.memory_mib, "dom0_memory_mib": record.dom0_memory_mib}
        about |= {"up_s": round(time.time() - record.started_unix_s), "restored": record.restored}
        with self._qmp() as qmp:
            about["disks"] = disks.attached(qmp)
            rules = [(end, to) for end, to in ports.forwards(qmp).items() if to != TLS_PORT or end.protocol != "tcp"]
            shown = {"tcp": "", "udp": "/udp"}
            about["forwards"] = [f"{end.address}:{end.port}:{to}{shown[end.protocol]}" for end, to in rules]
        about["state_disk"] = str(self.state_disk)
        about["api"] = f"tls://{ADDRESS}:{record.api_port}"
        return about

    # -- calls ---------------------------------------------------------------------------------------------------------

    def endpoint(self) -> Endpoint:
        """Where its zoned answers. Raises LabDown, LabFailed."""
        self._up_record()
        return lab_endpoint(self.state.directory)

    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        on_event: Callable[[Any], None] | None = None,
        timeout_s: float | None = 60.0,
    ) -> Any:
        """One call of dom0's agent. Raises RemoteFault, CallTimeout, LabDown, LabFailed when QEMU ends meanwhile."""
        record = self._up_record()
        try:
            return channel.call(self.state, method, params, on_event=on_event, timeout_s=timeout_s)
        except (ConnectionLost, LabDown):
            # Its sockets close a moment before the process is gone.
            if not process.wait_gone(record.pid, DEATH_TIMEOUT_S):
                raise
            raise self._died("while a call was under way") from None

    def shell(self, command: str, *, timeout_s: float = 120.0, input: str = "") -> tuple[int, str]:
        """Run a shell command in dom0: (exit code, what it printed)."""
        params = {"command": command, "timeout_s": timeout_s, "input": input}
        answer = self.call("sh", params, timeout_s=timeout_s + 60)
        return int(answer["code"]), str(answer["output"])

    # -- disks and ports -----------------------------------------------------------------------------------------------

    def attach(self, blob: Descriptor) -> str:
        """Make a blob of the store a read-only disk of dom0; the serial number it has there."""
        with self._qmp() as qmp:
            return disks.plug(qmp, self.store, blob)

    def detach(self, digest: str) -> None:
        """Take a blob's disk out; the caller knows that no zone uses it."""
        with self._qmp() as qmp:
            disks.unplug(qmp, digest.removeprefix("sha256:"))

    def is_stale(self, blob: Descriptor) -> bool:
        """Is the blob plugged in from a file that the store has replaced since, as it does with a damaged one?"""
        if str(blob.digest) not in self.attached():
            return False
        wanted = self.store.path(blob.digest).stat()
        for link in Path(f"/proc/{self._up_record().pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.path.samestat(link.stat(), wanted):
                    return False
        return True

    def attached(self) -> list[str]:
        """The digests (`sha256:…`) of all blobs that are disks of dom0 now."""
        with self._qmp() as qmp:
            return [f"sha256:{digest}" for digest in disks.attached(qmp)]

    def find_free(self, wanted: Iterable[tuple[str, int, str]]) -> list[int]:
        """The numbers of ports of this machine (address, port, protocol); for 0 one that is free.

        Raises:  PortTaken or BadAddress where one could not be forwarded.
        """
        return ports.find_free(HostPort(*end) for end in wanted)

    def forward(self, host_address: str, host_port: int, dom0_port: int, protocol: str = "tcp") -> None:
        """Lead a port of this machine to one of dom0."""
        with self._qmp() as qmp:
            ports.add(qmp, HostPort(host_address, host_port, protocol), dom0_port)

    def unforward(self, host_address: str, host_port: int, protocol: str = "tcp") -> None:
        """Lead it no more."""
        with self._qmp() as qmp:
            ports.remove(qmp, HostPort(host_address, host_port, protocol))

    def forwards(self) -> dict[HostPort, int]:
        """Every forward but the one to zoned: from where here, to which port of dom0."""
        with self._qmp() as qmp:
            return {end: to for end, to in ports.forwards(qmp).items() if (to, end.protocol) != (TLS_PORT, "tcp")}

    def own_forwards(self) -> set[HostPort]:
        """The forwards of the configuration, which belong to no zone."""
        rules = (rule.split(":") for rule in self.config.ports)
        return {HostPort(address[0] if address else ADDRESS, int(port)) for *address, port, _ in rules}

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Held by whoever plugs disks for a zone that zoned does not know yet, or takes back what no zone uses."""
        return self.state.lock(name=DISKS_LOCK)

    # -- looking into it -----------------------------------------------------------------------------------------------

    def console(self) -> None:
        """Join this terminal and the console of Xen and dom0 until Ctrl-]."""
        self._up_record()
        attach_console(self.state.path(qemu.CONSOLE_SOCKET), self.state.path(qemu.CONSOLE_LOG))

    def console_tail(self, size_bytes: int = 8192) -> str:
        """The end of what Xen and dom0 said."""
        return console_tail(self.state.path(qemu.CONSOLE_LOG), size_bytes).decode(errors="replace")

    # -- the inside ----------------------------------------------------------------------------------------------------

    def _running(self) -> Record | None:
        record = self.state.read()
        if record is None or not record.ready:
            return None
        return record if process.is_alive(record.pid, record.start_ticks, record.boot_id) else None

    def _up_record(self) -> Record:
        if (record := self._running()) is not None:
            return record
        if (record := self.state.read()) is not None and record.ready:
            raise self._died("since it was last used")
        raise LabDown("the lab", got="not up", hint="zone host up")

    def _died(self, when: str) -> LabFailed:
        words = process.last_words(self.state.directory, process.LOG, qemu.CONSOLE_LOG)
        return LabFailed("the lab", got=f"its QEMU ended {when}: {words}", hint="zone host up starts it again")

    def _bring_back(self, record: Record, progress: Progress) -> Record:
        """Once for each start of the lab; where it was interrupted, whoever needs the lab next goes on with it."""
        try:
            taken = self.state.take(COMEBACK_LOCK, timeout_s=0)
        except LabFailed:
            return record  # another command is at it; its zones are nothing this one has to wait for
        try:
            comeback.bring_back(self, progress)
            with self.state.lock():
                if self.state.read() == record:  # it may have been ended meanwhile
                    record = replace(record, returned=True)
                    self.state.write(record)
        finally:
            os.close(taken)
        return record

    def _serves(self, record: Record, parts: Parts, progress: Progress) -> bool:
        """Is the running lab the wanted one, and does it answer? Raises LabOutdated when it must not be ended."""
        silence = self._silence(progress)
        if record.key == parts.key:
            if silence is not None:
                progress.say(f"the lab does not answer ({silence}); starting it again")
            return silence is None
        try:
            zones = ", ".join(zoned.live_zones(self.state.directory, PING_TIMEOUT_S))
        except RuntimeFault as error:
            zones = f"zones or none: its zoned does not say ({error})"
        if zones:
            raise LabOutdated(
                "the lab",
                expected="one of this code and these settings",
                got=f"an older one, which runs {zones}",
                hint="zone host down ends it and them",
            )
        progress.say("the lab runs older code or settings; starting it again")
        return False

    def _silence(self, progress: Progress) -> RuntimeFault | None:
        """Why zoned does not answer; None when it does.

        While dom0 answers, zoned is on its way back and waited for: the end of the lab would be that of its zones.
        """
        directory = self.state.directory
        try:
            zoned.await_answer(directory, PING_TIMEOUT_S)
            return None
        except RuntimeFault as fault:
            silence = fault
        try:
            channel.call(self.state, "ping", timeout_s=PING_TIMEOUT_S)
            with progress.bar("lab: waiting for zoned, which comes back", unit="steps"):
                zoned.await_answer(directory, COMING_BACK_TIMEOUT_S)
            return None
        except RuntimeFault as fault:
            log.debug("the lab's zoned stays away: %s", fault)
            return silence

    def _settle(self) -> None:
        """Before the end: zoned lets go of its state, the disk is unmounted. A lab that cannot has to do without."""
        if self._running() is not None:
            try:
                channel.call(self.state, "stop", timeout_s=STOP_TIMEOUT_S)
            except RuntimeFault as error:
                log.warning("the lab's state disk is checked at its next start: %s", error)

    def _sweep(self) -> bool:
        """End every QEMU with this lab's mark, whoever started it, and remove the files but for the lock."""
        found = process.marked(self.state.mark)
        for pid in found:
            process.end(pid, self.state.mark)
        self.state.clear(keep_lock=True)
        return bool(found)

    def _start(self, parts: Parts, progress: Progress) -> Record:
        if self.snapshots.find(parts.key) is not None:
            try:
                with progress.bar("lab: restoring the snapshot", unit="steps"):
                    return self._configure(self._launch(parts, restore=True))
            except (SnapshotDamaged, LabFailed, CallTimeout, ConnectionLost) as error:
                log.warning("%s", error)
                progress.say(f"the lab's snapshot cannot be used ({error}); starting cold")
                self.snapshots.drop(parts.key)
                self._sweep()
        with progress.bar(f"lab: starting Xen and dom0 by {parts.accel} (once; then a snapshot serves)", unit="steps"):
            record = self._launch(parts, restore=False)
        try:
            with progress.bar("lab: saving the snapshot", unit="steps"):
                self._save(parts, progress)
        except BaseException:
            self._sweep()
            raise
        with progress.bar("lab: starting zoned", unit="steps"):
            return self._configure(record)

    def _configure(self, record: Record) -> Record:
        """Give a dom0 that is up what no snapshot holds: time, keys, state disk; returns when zoned answers."""
        try:
            channel.call(self.state, "set_clock", {"unix_s": time.time()}, timeout_s=PING_TIMEOUT_S)
            statefile.make(self.state_disk)
            with self._qmp() as qmp:
                serial = statefile.plug(qmp, self.state_disk)
                api_port = ports.add_any(qmp, ADDRESS, TLS_PORT)
            wanted = {"tls": keys.make(self.state.directory), "state_disk": serial}
            wanted |= {"boot": str(uuid.uuid4()), "seed": os.urandom(32).hex()}
            channel.call(self.state, "configure", wanted, timeout_s=CONFIGURE_TIMEOUT_S)
            record = replace(record, ready=True, api_port=api_port)
            self.state.write(record)
            zoned.await_answer(self.state.directory, ANSWER_TIMEOUT_S)
        except BaseException:
            self._sweep()
            raise
        return record

    def _launch(self, parts: Parts, *, restore: bool) -> Record:
        """Start QEMU and return when dom0 is up; a failure or an interrupt leaves no QEMU."""
        reader, writer = os.pipe() if restore else (-1, -1)
        try:
            argv = [*parts.argv, "-incoming", f"fd:{reader}"] if restore else list(parts.argv)
            pid = process.spawn(argv, cwd=self.state.directory, pass_fds=[reader] if restore else [])
            if restore:
                os.close(reader)
                reader = -1
            record = self._record(pid, parts, restored=restore)
            self.state.write(record)
            if restore:
                self._restore(pid, parts, writer)
            self._await_dom0(pid, RESTORE_TIMEOUT_S if restore else COLD_TIMEOUT_S)
        except BaseException:
            self._sweep()
            raise
        finally:
            for fd in (reader, writer):
                if fd >= 0:
                    with contextlib.suppress(OSError):
                        os.close(fd)
        return record

    def _record(self, pid: int, parts: Parts, *, restored: bool) -> Record:
        ticks = process.start_ticks(pid)
        if ticks is None:
            raise LabFailed("QEMU", expected="it to start", got=process.last_words(self.state.directory, process.LOG))
        return Record(
            pid=pid,
            start_ticks=ticks,
            boot_id=process.boot_id(),
            key=parts.key,
            flavour=self.config.flavour,
            accel=parts.accel,
            memory_mib=self.config.memory_mib,
            dom0_memory_mib=self.config.dom0_memory_mib,
            vcpus=self.config.vcpus,
            ports=self.config.ports,
            started_unix_s=time.time(),
            restored=restored,
            ready=False,
        )

    def _restore(self, pid: int, parts: Parts, writer: int) -> None:
        with self._qmp_of(pid) as qmp:
            self.snapshots.feed(parts.key, writer)
            self.store.days.note(f"snapshot-{parts.key}")
            snapshots.wait_loaded(qmp)
            qmp.execute("cont")

    def _save(self, parts: Parts, progress: Progress) -> None:
        try:
            with self.store.lock(f"lab-snapshot-{parts.key[:32]}"), self._qmp() as qmp:
                self.snapshots.save(qmp, parts.key)
                self.store.days.note(f"snapshot-{parts.key}")
        except (OSError, LabFailed, QmpError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            progress.say(f"the lab's snapshot could not be saved ({why}): the next start is a cold one, too")

    def _await_dom0(self, pid: int, timeout_s: float) -> None:
        """Wait until dom0 is up and zoned waits for its configuration."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                channel.call(self.state, "ping", timeout_s=PING_SLICE_S)
                left = max(deadline - time.monotonic(), 1.0)
                channel.call(self.state, "ready", {"timeout_s": left}, timeout_s=left + PING_TIMEOUT_S)
                return
            except RemoteFault as fault:
                raise LabFailed("dom0 of the lab", expected=fault.expected, got=fault.got, hint=fault.hint) from fault
            except (CallTimeout, ConnectionLost, LabDown):
                self._check_alive(pid)
            if time.monotonic() > deadline:
                words = process.last_words(self.state.directory, qemu.CONSOLE_LOG)
                raise LabFailed("dom0", expected=f"its agent to answer within {timeout_s:.0f} s", got=f"none: {words}")
            time.sleep(POLL_S)

    def _check_alive(self, pid: int) -> None:
        if process.start_ticks(pid) is None:
            raise LabFailed(
                "QEMU",
                expected="it to run",
                got=f"it ended: {process.last_words(self.state.directory, process.LOG, qemu.CONSOLE_LOG)}",
            )

    @contextlib.contextmanager
    def _qmp(self) -> Iterator[Qmp]:
        with self._qmp_of(self._any_record().pid) as qmp:
            yield qmp

    def _any_record(self) -> Record:
        record = self.state.read()
        if record is None or not process.is_alive(record.pid, record.start_ticks, record.boot_id):
            return self._up_record()
        return record

    @contextlib.contextmanager
    def _qmp_of(self, pid: int) -> Iterator[Qmp]:
        """QEMU's monitor, for one piece of work: it serves one client at a time."""
        path = self.state.path(qemu.QMP_SOCKET)
        with self.state.lock(name=QMP_LOCK, timeout_s=QMP_TIMEOUT_S):
            deadline = time.monotonic() + QMP_TIMEOUT_S
            while not path.exists():
                self._check_alive(pid)
                if time.monotonic() > deadline:
                    raise LabFailed("QEMU", expected=f"its monitor within {QMP_TIMEOUT_S:.0f} s", got="none")
                time.sleep(POLL_S)
            with Qmp.connect(path, timeout_s=QMP_TIMEOUT_S) as qmp:
                yield qmp
