"""Undoes a network from its ledger records alone.

Records: net.directory (path), net.netns (name), net.engine (pid, start_time), net.vif (vif, netns), net.listener
(address, port, zone_port, and protocol where it is not tcp); of a zone in a shared network, whose first three are in
that network's own ledger, net.member (network, zone, where its engine is asked, and the device in the namespace that is
made for it where its bandwidth is limited). A record KIND.gone says that what an earlier KIND with the same fields
named is given back.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from runtime.net import bandwidth, netns
from runtime.net.engine import processes
from runtime.net.engine.control import ask
from runtime.net.errors import EngineFault

log = logging.getLogger(__name__)

_LEAVE_TIMEOUT_S = 10.0
_IDENTITY = {"net.engine": ("pid", "start_time"), "net.listener": ("address", "port", "protocol")}


def current(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The network's records that still name something, in order."""
    kept: list[dict[str, Any]] = []
    for record in records:
        kind = str(record["kind"])
        if not kind.startswith("net."):
            continue
        if kind.endswith(".gone"):
            named = _identity(kind.removesuffix(".gone"), record)
            kept = [old for old in kept if _identity(old["kind"], old) != named]
        else:
            kept.append(dict(record))
    return kept


def directories(records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Those of the networks that the records name."""
    return (str(record["path"]) for record in current(records) if record["kind"] == "net.directory")


def _identity(kind: str, record: Mapping[str, Any]) -> tuple[Any, ...]:
    return (kind, *(record.get(field) for field in _IDENTITY.get(kind, ())))


def teardown(records: Iterable[Mapping[str, Any]]) -> None:
    """End all that these ledger records name, newest first; records of other kinds are passed over.

    Listeners end with their engine and the vif leaves with the namespace (the kernel gives a device without link
    operations of its own back to the host's namespace), so both are told to the ledger for people and checks only.
    Raises:  the first failure, after everything was tried.
    """
    failure: Exception | None = None
    for record in reversed(list(records)):
        try:
            match record["kind"]:
                case "net.engine":
                    processes.kill(record["pid"], record["start_time"])
                case "net.netns":
                    netns.delete(record["name"])
                case "net.member":
                    _let_go(record["control"], record["zone"])
                    _unlimit(record["netns"], record["limit"])
                case "net.directory":
                    shutil.rmtree(record["path"], ignore_errors=True)
        except Exception as error:
            log.warning("teardown of %s: %s", record["kind"], error)
            failure = failure or error
    if failure is not None:
        raise failure


def _let_go(control: str, zone: str) -> None:
    """Have a shared network's engine end what it has of a zone; one that does not run has nothing of any.

    Raises:  EngineFault where one runs, and may not have heard it: it would keep the zone's ports and connections.
    """
    failure: Exception | None = None
    for _ in range(2):  # one that ended as it was asked, and so gave no answer, is not there the second time
        try:
            ask(control, {"op": "leave", "zone": zone}, timeout_s=_LEAVE_TIMEOUT_S)
            return
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return
        except ConnectionError as error:
            failure = error
        except (OSError, ValueError) as error:
            failure = error
            break
    expected = f"it to let go of zone {zone}"
    raise EngineFault(f"network engine at {control}", expected=expected, got=str(failure), temporary=True) from failure


def _unlimit(namespace: str, device: str) -> None:
    if netns.path_of(namespace).exists():
        netns.inside(namespace, lambda: bandwidth.remove(device, subject=f"network {namespace}"))
