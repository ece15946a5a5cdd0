"""A network as one declaration: what it is made of, in one document, and nothing of zoned.

    {"name": "back", "index": 9, "zones": [
        {"name": "db", "host": 2, "vif": "vif3.0"},
        {"name": "web", "host": 3, "vif": "vif4.0", "egress": ["deny any 25/tcp"],
         "ports": [{"host_address": "127.0.0.1", "host_port": 8080, "zone_port": 80}]}]}

`python -m runtime.net FILE` makes it and keeps it until SIGTERM. See Declaration and DeclaredZone for all the keys.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

from pipeline.bundle.bandwidth import LEAST_BIT_S, MOST_BIT_S, fits
from pipeline.bundle.egress import MOST_RULES, parse_rule
from pipeline.bundle.model import Port
from runtime.net.addresses import ZONE_HOST, plan_addresses
from runtime.net.errors import NetworkFault
from runtime.net.network import ZoneNetwork
from runtime.net.plan import netns_name
from runtime.net.policy import check_rule
from runtime.net.pool import DEFAULT, parse_pools, use
from runtime.net.resolvers import RESOLV_CONF
from runtime.net.segment import RUN_DIRECTORY, SHARED, Segment
from runtime.net.supervise import EngineSupervisor
from runtime.net.teardown import teardown

log = logging.getLogger(__name__)

T = TypeVar("T")
_SUFFIX = ".ledger"
_TEXTS = "tuple[str, ...]"
_LAST_PORT = 65535


@dataclass(frozen=True)
class DeclaredZone:
    """A zone of the network, whose vif is there already."""

    name: str
    vif: str
    host: int = ZONE_HOST
    isolated: bool = False
    egress: tuple[str, ...] = ()
    bandwidth_bit_s: int = 0
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True)
class Declaration:
    """index: which of the pools' networks it is. deny: networks that no rule opens. run: where its state lies."""

    name: str
    index: int
    zones: tuple[DeclaredZone, ...] = ()
    mtu: int = 1500
    deny: tuple[str, ...] = ()
    pool4: str = str(DEFAULT.v4)
    pool6: str = str(DEFAULT.v6)
    run: str = str(RUN_DIRECTORY)
    resolv_conf: str = str(RESOLV_CONF)


def parse(text: str | bytes) -> Declaration:
    """The declaration of a JSON text. Raises NetworkFault."""
    try:
        document = json.loads(text)
        zones = tuple(
            _made(DeclaredZone, zone | {"ports": tuple(_made(Port, port) for port in zone.get("ports", ()))})
            for zone in document.get("zones", ())
        )
        declared = _made(Declaration, document | {"zones": zones})
        _check(declared)
        return declared
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise NetworkFault("network declaration", expected="one JSON object", got=str(error)) from error


def _check(declared: Declaration) -> None:
    """What nothing asks about later, or only with a part of the network made. Raises ValueError, NetworkFault."""
    netns_name(SHARED + declared.name)  # files have it, too
    for network in declared.deny:
        ip_network(network)
    of, hosts = parse_pools(declared.pool4, declared.pool6), set[int]()
    for zone in declared.zones:
        if len(zone.egress) > MOST_RULES:
            raise ValueError(f"zone {zone.name} has more than {MOST_RULES} egress rules")
        for rule in zone.egress:
            check_rule(parse_rule(rule), rule, of)
        if zone.bandwidth_bit_s and not fits(zone.bandwidth_bit_s):
            raise ValueError(f"bandwidth of zone {zone.name} is none from {LEAST_BIT_S} to {MOST_BIT_S} bit/s")
        for port in zone.ports:
            if not (0 <= port.host_port <= _LAST_PORT and 0 < port.zone_port <= _LAST_PORT):
                raise ValueError(f"port {port.host_port}:{port.zone_port} of zone {zone.name} is none")
        if zone.host in hosts:  # the guard would not know one from the other
            raise ValueError(f"host {zone.host} is two zones'")
        hosts.add(zone.host)


def _made(kind: Callable[..., T], document: dict[str, Any]) -> T:
    """A dataclass of a JSON object. Raises TypeError, ValueError."""
    wanted = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    for name, value in document.items():
        if wanted.get(name) == _TEXTS and not (isinstance(value, list) and all(type(each) is str for each in value)):
            raise ValueError(f"{name}: {value!r} is no list of texts")
        kinds = {"int": int, "bool": bool, "str": str}.get(str(wanted.get(name)))
        if kinds is not None and type(value) is not kinds:
            raise ValueError(f"{name}: {value!r} is no {kinds.__name__}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in document.items()})


@dataclass(frozen=True)
class DeclaredLedger:
    """What a declared network has taken: one record a line."""

    path: Path

    @property
    def name(self) -> str:
        """The network's."""
        return self.path.stem

    @property
    def directory(self) -> Path:
        """Where the network's engine is asked, whatever the records say."""
        return self.path.parent / f"{SHARED}{self.name}"

    def record(self, kind: str, **entry: Any) -> None:
        """Append one."""
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, **entry}) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """All; but for a last one that was cut off. None once the network has gone, and its ledger with it.

        Raises:  NetworkFault, OSError where one cannot be read: what it names is not to be forgotten.
        """
        try:
            records = [json.loads(line) for line in self.path.read_text().splitlines() if line.endswith("}")]
        except FileNotFoundError:
            return []
        except (ValueError, RecursionError) as error:
            raise NetworkFault(str(self.path), expected="one record a line", got=str(error)) from error
        for record in records:
            if not isinstance(record.get("kind"), str):
                raise NetworkFault(str(self.path), expected="records of some kind", got=str(record)[:200])
        return records

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the one program that keeps the network; one that was killed has let go of it. Raises NetworkFault."""
        while (fd := self._lock()) is None:
            pass
        try:
            yield
        finally:
            os.close(fd)

    def _lock(self) -> int | None:
        """The file, locked; None for one whose network ended just now, and took it away."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), self.path.stat()):
                return fd
        except BlockingIOError:
            os.close(fd)
            raise NetworkFault(f"network {self.name}", got="another program keeps it") from None
        except FileNotFoundError:
            pass
        os.close(fd)
        return None


def ledgers(run: Path = RUN_DIRECTORY) -> list[DeclaredLedger]:
    """Of the declared networks that are there."""
    return [DeclaredLedger(path) for path in sorted(run.glob(f"*{_SUFFIX}"))]


def _forget(ledger: DeclaredLedger) -> None:
    """Remove the ledger of a network that has ended; what could not be given back is named by it until it is."""
    teardown(ledger.records())
    ledger.path.unlink(missing_ok=True)


@contextlib.contextmanager
def kept(declared: Declaration) -> Iterator[dict[str, ZoneNetwork]]:
    """The network and its zones' places, by name, while the context lasts; its engine is replaced where it dies.

    What one that was killed has left is taken down first; one that another program keeps is refused.
    Raises:  RuntimeFault. Effects: the pools of this process.
    """
    try:
        use(parse_pools(declared.pool4, declared.pool6))
    except ValueError as error:
        raise NetworkFault("network declaration", expected="pools", got=str(error)) from error
    run = Path(declared.run)
    run.mkdir(parents=True, exist_ok=True, mode=0o755)
    ledger = DeclaredLedger(run / f"{declared.name}{_SUFFIX}")
    record = ledger.record
    with contextlib.ExitStack() as stack:
        stack.enter_context(ledger.held())
        teardown(ledger.records())
        os.truncate(ledger.path, 0)  # and not removed: what is held is this file
        stack.callback(_forget, ledger)
        segment = Segment(
            declared.name,
            plan_addresses(declared.index),
            declared.mtu,
            record,
            shared=True,
            deny=declared.deny,
            run_directory=run,
            resolv_conf=Path(declared.resolv_conf),
        )
        segment.create()
        stack.callback(segment.destroy)
        supervisor = EngineSupervisor(resolv_conf=Path(declared.resolv_conf))
        stack.callback(supervisor.close)
        supervisor.add(segment)
        stack.callback(supervisor.discard, segment)
        networks = {}
        for zone in declared.zones:
            network = networks[zone.name] = ZoneNetwork(
                zone.name,
                plan_addresses(declared.index, host=zone.host),
                declared.mtu,
                record,
                segment=segment,
                isolated=zone.isolated,
                egress=zone.egress,
                bandwidth_bit_s=zone.bandwidth_bit_s,
            )
            network.create()
            stack.callback(network.destroy)
            network.listen(zone.ports)
            network.attach(zone.vif)
            network.serve()
        yield networks
