"""`Check` of host.proto: the manager's comparison, as a reply."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from runtime.host.api import host_pb2 as pb
from runtime.host.check import Report


class Checker:
    """Answers with what `check` (Manager.check) finds."""

    def __init__(self, check: Callable[[], Awaitable[Report]]) -> None:
        self._check = check

    async def __call__(self) -> pb.CheckReply:
        """The reply. Raises HypervisorFault, XenstoreFault."""
        report = await self._check()
        return pb.CheckReply(
            findings=[
                pb.CheckFinding(kind=item.kind, what=item.what, problem=item.problem, remedy=item.remedy)
                for item in report.findings
            ],
            looked_at=report.looked_at,
            unseen=report.unseen,
        )
