"""The simulated host's networks, private and shared: they note what is done to them, and outlive their zoned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.bundle.model import Port
from runtime.net.addresses import ZoneAddresses
from runtime.net.capture import CaptureRequest
from runtime.net.engine.flows import Flow
from runtime.net.engine.interface import Engine
from runtime.net.errors import EngineFault
from runtime.net.published import Published, key_of, protocol_of
from support.fakecapture import FakeCapture

if TYPE_CHECKING:
    from runtime.host.daemon.manager import Manager
    from runtime.host.daemon.model import NetworkInfo
    from support.daemonworld import Host


class FakeNetwork:
    """Notes what is done; its engine lives on without its zoned."""

    def __init__(
        self,
        host: Host,
        name: str,
        record: Callable[..., None],
        *,
        egress: tuple[str, ...],
        bandwidth_bit_s: int,
        deny: tuple[str, ...] = (),
        segment: FakeSegment | None = None,
        isolated: bool = False,
        engine: Engine | None = None,
    ) -> None:
        self.engine = engine.name if engine is not None else ""
        self.host, self.name, self.record, self.segment, self.isolated = host, name, record, segment, isolated
        self.egress, self.bandwidth_bit_s = egress, bandwidth_bit_s
        self.listening: list[Published] = []
        self.vif, self.dead = "", False

    def _do(self, what: str) -> None:
        self.host.alive()
        self.host.did.append(f"{self.name}: {what}")

    def create(self) -> None:
        if self.segment is None:
            self.record("net.netns", name=self.name)
        else:
            self.record("net.member", network=self.segment.name, zone=self.name, control="")
            assert self.segment.name in self.host.segments, "its network is there"
        self._do("network made")
        if self.host.network_fails is not None:
            raise self.host.network_fails
        assert self.name not in self.host.networks, "two networks of one name"
        self.host.networks[self.name] = self
        if self.segment is not None:
            self.segment.zones[self.name] = self

    def use(self, listeners: Iterable[tuple[Port, Any]]) -> None:
        for port, listener in listeners:
            address, number = listener.getsockname()[:2]
            item = Published(address, number, port.zone_port, listener.dup(), protocol=protocol_of(listener))
            self.record("net.listener", **item.fields())
            self.listening.append(item)

    def attach(self, vif: str) -> None:
        self._do(f"attached {vif}")
        self.vif = vif

    def serve(self) -> None:
        self._do("serves")
        if self.host.engine_deaths:
            self.host.engine_deaths -= 1
            self.dead = True
            raise EngineFault("network engine", expected="an answer", got="it ended: killed", temporary=True)

    def revive(self, *, only_dead: bool = False) -> None:
        assert self.dead and only_dead, "one that serves would be ended"
        self.dead = False
        self._do("has another engine")
        self.serve()

    def unpublish(self, address: str, port: int, protocol: str = "tcp") -> None:
        (gone,) = [item for item in self.listening if item.key == key_of(address, port, protocol)]
        gone.listener.close()
        self.record("net.listener.gone", **gone.fields())
        self.listening.remove(gone)

    def published(self) -> tuple[Published, ...]:
        return tuple(self.listening)

    def close(self) -> None:
        """Its engine ends."""
        for item in self.listening:
            item.listener.close()

    def judge_by(self, egress: Iterable[str]) -> None:
        if self.host.engine_fails is not None:
            raise self.host.engine_fails
        self.egress = tuple(egress)

    def limit(self, bandwidth_bit_s: int) -> None:
        if self.host.limit_fails is not None:
            raise self.host.limit_fails
        self.bandwidth_bit_s = bandwidth_bit_s

    def answers(self, zone_port: int, *, timeout_s: float = 1.0) -> bool:
        self.host.alive()
        return zone_port in self.host.answering

    def alive(self) -> bool:
        return not self.dead

    def counters(self) -> dict[str, int]:
        return {"bytes_out": 1}

    def flows(self) -> list[Flow]:
        if self.host.engine_fails is not None:
            raise self.host.engine_fails
        return [Flow("tcp", "10.75.0.2:40000", "192.0.2.7:443", "open", 7, 9, 1.5)]

    def capture(self, request: CaptureRequest) -> FakeCapture:
        self.host.captures.append(FakeCapture(request))
        return self.host.captures[-1]

    def adopt(self, records: Iterable[Mapping[str, Any]]) -> bool:
        self._do("network adopted")
        if self.segment is not None:
            self.segment.zones[self.name] = self
        if self.name in self.host.networks:
            self.listening = self.host.networks[self.name].listening
            self.host.networks[self.name] = self
        return self.name in self.host.networks

    def destroy(self) -> None:
        self.host.alive()
        self.host.network_gone(self.name)
        if self.segment is not None:
            self.segment.zones.pop(self.name, None)


class FakeSegment:
    """A network that zones share; it lives on without its zoned."""

    def __init__(self, host: Host, name: str, addresses: ZoneAddresses, record: Callable[..., None]) -> None:
        self.host, self.name, self.addresses, self.record = host, name, addresses, record
        self.zones: dict[str, FakeNetwork] = {}

    def _do(self, what: str) -> None:
        self.host.alive()
        self.host.did.append(f"@{self.name}: {what}")

    def create(self) -> None:
        self.record("net.netns", name=f"@{self.name}")
        self._do("made")
        if self.host.segment_fails is not None:
            raise self.host.segment_fails
        assert self.name not in self.host.segments, "two networks of one name"
        self.host.segments[self.name] = self

    def adopt(self, records: Iterable[Mapping[str, Any]]) -> bool:
        self._do("adopted")
        return self.name in self.host.segments

    def renew_rules(self) -> None:
        self._do("rules renewed")

    def forget_others(self) -> None:
        self._do("others forgotten")

    def destroy(self) -> None:
        if self.host.segment_stays is not None:
            raise self.host.segment_stays
        self._do("gone")
        self.host.segments.pop(self.name, None)


async def shared(manager: Manager) -> dict[str, NetworkInfo]:
    """The networks that zones share, by name."""
    return {network.name: network for network in await manager.networks() if network.shared}


def addresses(manager: Manager) -> dict[str, str]:
    """The IPv4 address of every zone that has one."""
    return {zone.name: zone.addresses[0] for zone in manager.list_zones() if zone.addresses}
