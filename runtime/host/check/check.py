"""The check itself: ledgers are read, the host is looked at, both are compared; a difference must be seen twice.

While something is being torn down the parts of it go one after the other, and any of them may be seen without the rest:
then a difference must be there when that is over, too.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from runtime.boot.doors import Hypervisor
from runtime.host.check import compare, compare_host
from runtime.host.check.expected import Expected, LedgerLike, read_ledgers
from runtime.host.check.look_host import Places, look_at_host
from runtime.host.check.look_xen import look_at_xen, look_at_xenstore
from runtime.host.check.model import Finding, Found, HostPort, Report

if TYPE_CHECKING:
    from runtime.boot.xenstore import XenStore

PATIENCE_S = 30.0  # a teardown waits that long for the kernel's halves
LOOK_AGAIN_S = 0.2


def check(
    hypervisor: Hypervisor,
    xenstore: XenStore,
    ledgers: Callable[[], Iterable[LedgerLike]],
    *,
    places: Places | None = None,
    allowed: Callable[[], Iterable[str]] = tuple,
    loop_files: Iterable[str] = (),
    own_ports: Callable[[], Iterable[HostPort]] | None = None,
    going: Callable[[], bool] = lambda: False,
) -> Report:
    """Compare this host with its ledgers.

    ledgers:     gives all ledgers; asked more than once, as zones come and go while the host is looked at.
    allowed:     gives paths below places.directories that are zoned's own, with all below them; asked as often.
    loop_files:  directories (store, volumes): a loop device over a file in one, without a ledger, is a leak.
    own_ports:   gives what this process listens on by right, besides what ledgers name; what else it listens on is a
                 leak. None: its listeners are not compared.
    going:       is something of what the ledgers name being torn down now? For PATIENCE_S that is waited for.
    Raises:      HypervisorFault, XenstoreFault where Xen or xenstored does not answer.
    Threads:     call it in the host's network namespace.
    """
    where, files = places or Places(), tuple(loop_files)

    def look() -> tuple[list[Finding], Expected, Found]:
        before = read_ledgers(ledgers())
        found = Found()
        look_at_xen(hypervisor, found)
        look_at_xenstore(xenstore, found)
        look_at_host(before, where, found)
        after, vouched = read_ledgers(ledgers()), tuple(allowed())
        ports = None if own_ports is None else tuple(own_ports())
        # What was recorded or taken back while the host was looked at differs from only one of the two.
        certain = set(compare_all(after, found, vouched, files, ports))
        differs = compare_all(before, found, vouched, files, ports)
        return [finding for finding in differs if finding in certain], before, found

    deadline = time.monotonic() + PATIENCE_S
    moving = going()
    findings, expected, found = look()
    while findings:
        again = set(look()[0])
        findings = [finding for finding in findings if finding in again]
        moved, moving = moving, going()
        if not (moved or moving) or time.monotonic() > deadline:
            break
        time.sleep(LOOK_AGAIN_S)
    return Report(tuple(findings), _looked_at(expected, found), tuple(found.unseen))


def compare_all(
    expected: Expected,
    found: Found,
    allowed: Iterable[str] = (),
    loop_files: Iterable[str] = (),
    own_ports: Iterable[HostPort] | None = None,
) -> list[Finding]:
    """Every difference, and every ledger that could not be read: what is in no other may be in that one."""
    findings = [
        *compare.compare_domains(expected, found),
        *compare.compare_trees(expected, found),
        *compare.compare_devices(expected, found),
        *compare.compare_channels(found),
        *compare.compare_grants(found),
        *compare_host.compare_loops(expected, found, loop_files),
        *compare_host.compare_namespaces(expected, found),
        *compare_host.compare_processes(expected, found),
        *compare_host.compare_ports(expected, found, own_ports),
        *compare_host.compare_paths(expected, found, allowed),
    ]
    if expected.unread:
        findings = list(map(_uncertain, findings))
    return [*compare.compare_ledgers(expected), *findings]


def _uncertain(finding: Finding) -> Finding:
    """It may belong to a run that goes on: what would end it is no remedy."""
    if not finding.problem.endswith(compare.NO_LEDGER):
        return finding
    return dataclasses.replace(finding, problem=f"{finding.problem} that can be read", remedy="")


def _looked_at(expected: Expected, found: Found) -> dict[str, int]:
    return {
        "ledgers": len(expected.zones),
        "domains": len(found.domains),
        "xenstore trees": len(found.homes),
        "devices": len(found.backends | found.frontends) + len(found.kernel),
        "event channels": len(found.channels),
        "grants": sum(map(len, found.grants.values())),
        "loop devices": len(found.loops),
        "namespaces": len(found.namespaces),
        "interfaces": len(found.interfaces) + sum(map(len, found.links.values())),
        "processes": len(found.engines | found.shares | found.processes | found.orphans),
        "ports": len(found.listening),
        "mounts": len(found.mounts),
        "cgroups": len(found.cgroups),
        "files": len(found.files),
    }
