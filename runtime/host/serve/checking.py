"""`Check` of host.proto over the manager's zones: which of a host's directories and ledgers are compared."""

from __future__ import annotations

import asyncio

from runtime.host.api import host_pb2 as pb
from runtime.host.check import Report, check
from runtime.host.check.look_host import Places
from runtime.host.daemon.core import Core


class Checker:
    """Compares a host with what its zoned knows of it. Files of zones: their networks' and their logs."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self) -> pb.CheckReply:
        """The reply. Raises HypervisorFault, XenstoreFault."""
        # Not in the daemon's threads, which are for zones.
        report = await asyncio.to_thread(self._check)
        return pb.CheckReply(
            findings=[
                pb.CheckFinding(kind=item.kind, what=item.what, problem=item.problem, remedy=item.remedy)
                for item in report.findings
            ],
            looked_at=report.looked_at,
            unseen=report.unseen,
        )

    def _check(self) -> Report:
        core, edge = self._core, self._core.edge
        logs = core.settings.state_dir / "logs"
        return check(
            edge.hypervisor,
            edge.xenstore,
            core.ledgers.all,
            places=Places((core.settings.run_dir / "net", logs), containers=()),
            allowed=lambda: [str(logs / zone.id) for zone in list(core.zones.values())],
            loop_files=map(str, edge.stores),
        )
