"""The manager: the one object that owns the zones of this host. Everything here runs on one event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from pipeline.oci import Descriptor, Digest
from runtime.host.daemon.model import (
    BootProgress,
    BootRequest,
    DiskUsageRow,
    Emit,
    Event,
    HostStatus,
    LogEntry,
    Metric,
    NetworkInfo,
    Output,
    ProcessStart,
    Pruned,
    Reservation,
    TerminalSize,
    Update,
    WorkloadInfo,
    WorkloadRequest,
    ZoneInfo,
    ZoneProcess,
)


def ignore(progress: BootProgress) -> None:
    """An Emit for whoever does not want to hear."""


class Session:
    """A process's input and output: of an exec, or of an attach to a workload. `async with` closes it."""

    async def write_stdin(self, data: bytes) -> None:
        """Waits while the process does not read."""

    async def close_stdin(self) -> None:
        """End of file."""

    async def resize(self, size: TerminalSize) -> None:
        """The terminal has another size."""

    async def signal(self, number: int) -> None:
        """Signal the process."""

    def outputs(self) -> AsyncIterator[Output]:
        """What it says, until its exit, which is the last."""
        raise NotImplementedError

    async def close(self) -> None:
        """Leave: an exec'd process ends, a workload goes on."""

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Manager:
    """All zones of one host.

    Zones are named (`ref`) by name, id, or the start of an id (3 characters or more).
    Raises (all methods): RuntimeFaults of errors.py, and what building and wiring raise; UnknownZone names what is
    near. A cancelled call undoes what it began.
    """

    async def start(self) -> None:
        """Open the state, adopt what runs, end what is unfinished, boot what the restart policies say."""

    async def close(self, *, end_zones: bool = False) -> None:
        """Let go of everything; zones run on and are adopted by the next manager, unless they are to end."""

    # -- zones ---------------------------------------------------------------------------------------------------------

    async def boot(self, request: BootRequest, emit: Emit = ignore) -> ZoneInfo:
        """Make a zone of the request and start it; when it returns is the request's `until_…`.

        A zone of the same name that has ended gives way. Cancelled before it returns, the zone ends and is forgotten;
        failed, it stays listed as such unless it is to be removed.
        Raises:  NameTaken, BadRequest, NotEnough, BlobMissing, BootCancelled (stopped meanwhile), ZoneFailed.
        """
        raise NotImplementedError

    def list_zones(self, *, all: bool = True) -> list[ZoneInfo]:
        """By name; without `all` only live ones."""
        raise NotImplementedError

    async def get(self, ref: str, *, fresh: bool = False) -> ZoneInfo:
        """One zone; fresh asks the guest for the memory and vCPUs it sees."""
        raise NotImplementedError

    async def stop(self, ref: str, timeout_s: float | None = None) -> ZoneInfo:
        """Its stop signal, its timeout, then the end. A boot is called off; an exited zone is fine."""
        raise NotImplementedError

    async def kill(self, ref: str, signal: int = 9) -> ZoneInfo:
        """Signal the workload; 0 ends the domain at once."""
        raise NotImplementedError

    async def restart(self, ref: str, timeout_s: float | None = None) -> ZoneInfo:
        """Stop if it runs, then start again."""
        raise NotImplementedError

    async def remove(self, ref: str, *, force: bool = False) -> ZoneInfo:
        """Forget an exited zone with its logs; force ends a live one first. As it was last."""
        raise NotImplementedError

    async def wait(self, ref: str, until: str = "exited", timeout_s: float = 0.0) -> ZoneInfo:
        """until: exited, running, ready, ports, removed. Raises ZoneFailed, WaitTimeout."""
        raise NotImplementedError

    async def update(self, ref: str, change: Update) -> ZoneInfo:
        """Change memory, vCPUs, restart policy, ports; refused as a whole where one cannot be."""
        raise NotImplementedError

    # -- output and input ----------------------------------------------------------------------------------------------

    def logs(
        self,
        ref: str,
        *,
        follow: bool = False,
        since: float = 0.0,
        until: float = 0.0,
        tail: int = -1,
        console: bool = False,
        workload: str = "",
    ) -> AsyncIterator[LogEntry]:
        """What a zone printed; follow goes on until it has ended."""
        raise NotImplementedError

    async def attach(self, start: ProcessStart) -> Session:
        """Join the output and input of a workload."""
        raise NotImplementedError

    async def exec(self, start: ProcessStart) -> Session:
        """Run one more process in a workload's container."""
        raise NotImplementedError

    async def copy_in(self, ref: str, path: str, chunks: AsyncIterator[bytes], *, workload: str = "") -> None:
        """Unpack a tar archive into a directory of the zone."""

    def copy_out(self, ref: str, path: str, *, workload: str = "") -> AsyncIterator[bytes]:
        """A path of the zone as a tar archive."""
        raise NotImplementedError

    async def dial(self, ref: str, address: str, port: int) -> Session:
        """A TCP connection made inside the zone; its bytes are stdin and stdout of the session."""
        raise NotImplementedError

    async def metrics(self, ref: str) -> list[Metric]:
        """What the zone measures of itself."""
        raise NotImplementedError

    async def processes(self, ref: str, *, workload: str = "") -> list[ZoneProcess]:
        """The processes in a zone."""
        raise NotImplementedError

    def snoop(self) -> AsyncIterator[tuple[str, Any]]:
        """(zone id, frame) of every agent channel, from now on."""
        raise NotImplementedError

    # -- events --------------------------------------------------------------------------------------------------------

    def events(
        self, *, since: str = "", from_start: bool = False, follow: bool = True, zone: str = ""
    ) -> AsyncIterator[Event]:
        """What happened after the token `since`, or from the start of what is kept, or from now on."""
        raise NotImplementedError

    async def event_token(self) -> str:
        """The token of the last event there was: `events(since=…)` of it misses nothing from now on."""
        raise NotImplementedError

    # -- blobs ---------------------------------------------------------------------------------------------------------

    async def find_blobs(self, blobs: Iterable[Descriptor]) -> list[Digest]:
        """Which of them this host lacks."""
        raise NotImplementedError

    async def put_blob(self, blob: Descriptor, chunks: AsyncIterator[bytes]) -> None:
        """Take a blob into the host's store; refused where it does not hash to its name."""

    # -- workloads -----------------------------------------------------------------------------------------------------

    async def create_workload(self, request: WorkloadRequest) -> WorkloadInfo:
        """Plug the image's disk into the zone and have its container made."""
        raise NotImplementedError

    async def start_workload(self, ref: str) -> WorkloadInfo:
        """Start the container's process."""
        raise NotImplementedError

    async def stop_workload(self, ref: str, timeout_s: float = 10.0) -> WorkloadInfo:
        """SIGTERM, then SIGKILL; returns when it has ended."""
        raise NotImplementedError

    async def destroy_workload(self, ref: str) -> WorkloadInfo:
        """End the container, remove it, unplug its disk."""
        raise NotImplementedError

    def list_workloads(self, zone: str = "") -> list[WorkloadInfo]:
        """All, or those of one zone."""
        raise NotImplementedError

    def get_workload(self, ref: str) -> WorkloadInfo:
        """One, by name, id or the start of an id."""
        raise NotImplementedError

    async def configure_network(self, ref: str, change: dict[str, Any]) -> None:
        """Have the zone's agent change its interface: mtu, routes, neighbours; as its method `network` takes them."""
        raise NotImplementedError

    # -- addresses -----------------------------------------------------------------------------------------------------

    async def create_reservation(self) -> Reservation:
        """Keep addresses for later zones."""
        raise NotImplementedError

    async def destroy_reservation(self, reservation_id: str) -> None:
        """Give them back; refused while a live zone uses them."""

    def list_reservations(self) -> list[Reservation]:
        """All, oldest first."""
        raise NotImplementedError

    # -- the host ------------------------------------------------------------------------------------------------------

    async def status(self) -> HostStatus:
        """The hypervisor, this domain, zoned itself."""
        raise NotImplementedError

    async def networks(self) -> list[NetworkInfo]:
        """The networks of live zones."""
        raise NotImplementedError

    async def disk_usage(self) -> list[DiskUsageRow]:
        """What lies on this host's disk, and what a prune would free."""
        raise NotImplementedError

    async def prune(self, *, zones: bool = False, blobs: bool = False, dry_run: bool = False) -> Pruned:
        """Remove exited zones with their logs; uploaded blobs no zone needs."""
        raise NotImplementedError
