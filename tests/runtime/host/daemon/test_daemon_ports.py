"""Published ports of zones: TCP and UDP apart, conflicts before anything is made, what is waited for."""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

import pytest
from support.daemonworld import Host, run
from support.ports import free_port

from runtime.host.agentlink.model import AgentFault
from runtime.host.daemon.errors import BadRequest, WaitTimeout
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import PortRule, State, Update
from runtime.net.engine.model import MAX_PUBLISHED
from runtime.net.errors import EngineFault, NetworkFault, PortTaken


def ends(zone: Any) -> list[tuple[int, str]]:
    return [(rule.zone_port, rule.protocol) for rule in zone.ports]


async def with_both(manager: Manager, host: Host) -> tuple[PortRule, PortRule]:
    """A zone that is on TCP and on UDP of one number."""
    zone = await manager.boot(host.request(ports=(PortRule(53),), until_ready=True))
    zone = await manager.update("web", Update(add_ports=(PortRule(53, port=zone.ports[0].port, protocol="udp"),)))
    tcp, udp = zone.ports
    assert (tcp.port, tcp.protocol, udp.protocol) == (udp.port, "tcp", "udp")
    return tcp, udp


def is_free(rule: PortRule) -> bool:
    with socket.socket(type=socket.SOCK_DGRAM if rule.protocol == "udp" else socket.SOCK_STREAM) as probe:
        try:
            probe.bind((rule.address, rule.port))
            return True
        except OSError:
            return False


def test_tcp_and_udp_of_one_number_come_and_go_apart(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        tcp, udp = await with_both(manager, host)
        assert [item.key for item in host.networks["web"].listening] == [
            f"127.0.0.1:{tcp.port}",
            f"127.0.0.1:{udp.port}/udp",
        ]
        zone = await manager.update("web", Update(remove_ports=(tcp,)))
        assert ends(zone) == [(53, "udp")] and is_free(tcp) and not is_free(udp)
        with pytest.raises(BadRequest, match=rf"one it is published on \(127\.0\.0\.1:{udp.port}/udp\), got 127.0.0.1"):
            await manager.update("web", Update(remove_ports=(tcp,)))
        await manager.stop("web")
        assert is_free(udp)
        await host.stop()

    run(work())


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("forwarded", [False, True], ids=["named here", "named on the user's machine"])
def test_one_update_leads_a_port_to_another_of_the_zone_and_it_is_open_all_the_while(
    host: Host, protocol: str, forwarded: bool
) -> None:
    async def work() -> None:
        manager = await host.start()
        there = PortRule(80, protocol=protocol, host_address="127.0.0.1", host_port=8080 if forwarded else 0)
        (old,) = (await manager.boot(host.request(ports=(there,), until_ready=True))).ports
        network = host.networks["web"]
        (before,) = [item.listener.getsockname() for item in network.listening]
        wanted = dataclasses.replace(there if forwarded else old, zone_port=81)
        unpublish, free = network.unpublish, []
        network.unpublish = lambda *end: (unpublish(*end), free.append(is_free(old)))
        zone = await manager.update("web", Update(add_ports=(wanted,), remove_ports=(old,)))
        assert zone.ports == (dataclasses.replace(old, zone_port=81),) and free == [False]
        (item,) = network.listening
        assert (item.listener.getsockname(), item.zone_port) == (before, 81) and not is_free(old)
        await manager.stop("web")
        assert is_free(old)
        await host.stop()

    run(work())


def test_port_that_is_named_twice_is_taken_back_once(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        (rule,) = (await manager.boot(host.request(ports=(PortRule(80),), until_ready=True))).ports
        zone = await manager.update("web", Update(remove_ports=(rule, PortRule(80))))
        assert zone.ports == () and is_free(rule)
        await host.stop(end_zones=True)

    run(work())


def test_one_update_puts_a_port_on_another_address(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        (old,) = (await manager.boot(host.request(ports=(PortRule(80),), until_ready=True))).ports
        wide = PortRule(80, address="0.0.0.0", port=old.port)
        zone = await manager.update("web", Update(add_ports=(wide,), remove_ports=(old,)))
        assert [(rule.address, rule.port) for rule in zone.ports] == [("0.0.0.0", old.port)]
        await host.stop(end_zones=True)

    run(work())


def test_port_that_the_engine_does_not_give_up_leaves_the_others_where_they_led(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        manager = await host.start()
        zone = await manager.boot(host.request(ports=(PortRule(80), PortRule(81)), until_ready=True))
        network = host.networks["web"]
        unpublish, failures = network.unpublish, iter([False, True])

        def fail_at_the_second(*end: Any) -> None:
            if next(failures, False):
                raise EngineFault("network engine of zone web", expected="an answer", got="none", temporary=True)
            unpublish(*end)

        monkeypatch.setattr(network, "unpublish", fail_at_the_second)
        with pytest.raises(EngineFault):
            await manager.update("web", Update(remove_ports=zone.ports))
        ends = sorted((item.port, item.zone_port) for item in network.listening)
        assert ends == sorted((rule.port, rule.zone_port) for rule in zone.ports)
        assert manager.list_zones()[0].ports == zone.ports
        await manager.update("web", Update(remove_ports=zone.ports))
        assert network.listening == [] and all(map(is_free, zone.ports))
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("fails", ["serve", "limit"])
def test_update_that_cannot_be_done_leaves_the_port_where_it_led(
    host: Host, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    async def work() -> None:
        manager = await host.start()
        (old,) = (await manager.boot(host.request(ports=(PortRule(80),), until_ready=True))).ports
        network, failures = host.networks["web"], iter([True])

        def fail_once(*_: Any) -> None:
            if next(failures, False):
                raise NetworkFault("network of zone web", expected="it done", got="not")

        monkeypatch.setattr(network, fails, fail_once)
        other = dataclasses.replace(old, zone_port=81)
        with pytest.raises(NetworkFault):
            await manager.update("web", Update(add_ports=(other,), remove_ports=(old,), bandwidth_bit_s=10**6))
        assert manager.list_zones()[0].ports == (old,)
        assert [(item.port, item.zone_port) for item in network.listening] == [(old.port, 80)]
        await manager.update("web", Update(remove_ports=(old,)))
        assert is_free(old)
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("database_lost", [False, True], ids=["", "database lost"])
def test_both_are_there_after_a_zoned_that_was_killed_and_what_was_given_back_is_not(
    host: Host, database_lost: bool
) -> None:
    async def work() -> None:
        manager = await host.start()
        tcp, udp = await with_both(manager, host)
        zone = await manager.update("web", Update(add_ports=(PortRule(54, protocol="udp"),)))
        await manager.update("web", Update(remove_ports=(zone.ports[2],)))
        await host.kill()
        if database_lost:
            for path in (host.path / "state").glob("zones.sqlite*"):
                path.unlink()
        manager = await host.start()
        assert ends(manager.list_zones()[0]) == [(53, "tcp"), (53, "udp")]
        zone = await manager.update("web", Update(remove_ports=(PortRule(53, port=udp.port, protocol="udp"),)))
        assert ends(zone) == [(53, "tcp")] and is_free(udp) and not is_free(tcp)
        await manager.stop("web")
        assert is_free(tcp)
        await host.stop()

    run(work())


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_port_of_another_zone_is_refused_before_there_is_a_zone(host: Host, address: str, protocol: str) -> None:
    async def work() -> None:
        manager = await host.start()
        zone = await manager.boot(host.request(ports=(PortRule(53, protocol=protocol),)))
        wanted = PortRule(53, address=address, port=zone.ports[0].port, protocol=protocol)
        did = list(host.did)
        suffix = "/udp" if protocol == "udp" else ""
        said = f"port {address}:{wanted.port}{suffix} of zone other: expected it free, got zone web has it"
        with pytest.raises(PortTaken, match=said):
            await manager.boot(host.request("other", ports=(wanted,)))
        assert [zone.name for zone in manager.list_zones()] == ["web"] and host.did == did
        third = await manager.boot(host.request("third"))
        with pytest.raises(PortTaken, match="of zone third: expected it free, got zone web has it"):
            await manager.update("third", Update(add_ports=(wanted,)))
        assert third.ports == ()
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_port_of_another_program_is_refused_before_there_is_a_zone(host: Host, protocol: str) -> None:
    async def work() -> None:
        manager = await host.start()
        with socket.socket(type=socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM) as other:
            other.bind(("127.0.0.1", 0))
            if protocol == "tcp":
                other.listen()
            wanted = PortRule(53, port=other.getsockname()[1], protocol=protocol)
            free = PortRule(80)
            with pytest.raises(PortTaken, match="of zone web: expected it free, got taken by another program"):
                await manager.boot(host.request(ports=(free, wanted)))
        assert manager.list_zones() == [] and host.leftovers() == []
        zone = await manager.boot(host.request(ports=(wanted,)))
        assert ends(zone) == [(53, protocol)]
        await host.stop(end_zones=True)

    run(work())


def test_zone_that_is_not_accepted_gives_its_ports_back(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        wanted = PortRule(80, port=free_port())
        host.xen.free = 0
        with pytest.raises(Exception, match="free memory"):
            await manager.boot(host.request(ports=(wanted,)))
        assert is_free(wanted)
        await host.stop()

    run(work())


def test_zone_whose_port_another_one_has_by_now_stays_ended_when_it_is_to_start_again(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        zone = await manager.boot(host.request(ports=(PortRule(53, protocol="udp"),)))
        wanted = PortRule(53, port=zone.ports[0].port, protocol="udp")
        await manager.stop("web")
        await manager.boot(host.request("other", ports=(wanted,)))
        again = host.request("web", ports=(wanted,))
        with pytest.raises(PortTaken, match="of zone web: expected it free, got zone other has it"):
            await manager.boot(again)
        assert (await manager.get("web")).state is State.EXITED, "it gives way to a new one only if that is accepted"
        await manager.stop("other")
        await manager.boot(again)
        await manager.stop("web")
        await manager.restart("other")
        with pytest.raises(PortTaken, match="of zone web: expected it free, got zone other has it"):
            await manager.restart("web")
        assert (await manager.get("web")).state is State.EXITED
        await manager.stop("other")
        assert ends(await manager.restart("web")) == [(53, "udp")]
        await host.stop(end_zones=True)
        assert is_free(wanted)

    run(work())


REFUSED = {
    "protocol": (PortRule(80, protocol="sctp"), r"tcp or udp ports up to 65535, got 127\.0\.0\.1:0 to 80/sctp"),
    "zone port": (PortRule(0), "tcp or udp ports up to 65535"),
    "port": (PortRule(80, port=65536), "tcp or udp ports up to 65535"),
    "address": (PortRule(80, address="web1"), "an IPv4 or IPv6 address, got 'web1'"),
}


@pytest.mark.parametrize(("rule", "said"), REFUSED.values(), ids=REFUSED)
def test_rule_that_cannot_be_is_refused_at_boot_and_at_update(host: Host, rule: PortRule, said: str) -> None:
    async def work() -> None:
        manager = await host.start()
        with pytest.raises(BadRequest, match=f"zone web, port: expected {said}"):
            await manager.boot(host.request(ports=(rule,)))
        await manager.boot(host.request())
        with pytest.raises(BadRequest, match=f"zone web, port: expected {said}"):
            await manager.update("web", Update(add_ports=(rule,)))
        await host.stop(end_zones=True)

    run(work())


def test_more_ports_than_an_engine_takes_are_refused(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(ports=(PortRule(1),)))
        many = tuple(PortRule(number + 1, protocol="udp") for number in range(MAX_PUBLISHED))
        with pytest.raises(BadRequest, match=f"at most {MAX_PUBLISHED} ports, got {MAX_PUBLISHED + 1}"):
            await manager.update("web", Update(add_ports=many))
        await host.stop(end_zones=True)

    run(work())


def test_port_that_nobody_named_is_told_as_it_was_chosen(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        free, forwarded = PortRule(80), PortRule(80, host_address="127.0.0.1", host_port=8080)
        zone = await manager.boot(host.request(ports=(free, forwarded)))
        first, second = zone.ports
        assert (first.host_address, first.host_port) == ("127.0.0.1", first.port) and first.port
        assert (second.host_port, second.port != 8080) == (8080, True)
        await host.stop(end_zones=True)

    run(work())


def test_udp_port_is_waited_for_by_asking_the_agent(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(ports=(PortRule(53, protocol="udp"),), until_ready=True))
        guest, asked = host.guest(), []

        def listening(params: dict[str, Any]) -> dict[str, Any]:
            asked.append(params)
            return {"open": len(asked) > 3}

        host.answering.add(53)  # by TCP, which is another port
        guest.answers["listening"] = lambda params: {"open": False}
        with pytest.raises(WaitTimeout, match="nothing listens on its port 53/udp after"):
            await manager.wait("web", "ports", 0.01)
        guest.answers["listening"] = listening
        await manager.wait("web", "ports", 120)
        assert asked == [{"port": 53}] * 4
        await host.stop(end_zones=True)

    run(work())


def test_udp_port_is_not_waited_for_where_nobody_can_tell(host: Host) -> None:
    def unknown(params: dict[str, Any]) -> dict[str, Any]:
        fault = AgentFault("zone web", got="no such method")
        fault.reason = "method"
        raise fault

    async def work() -> None:
        manager = await host.start()
        rule = PortRule(53, protocol="udp")
        await manager.boot(host.request("old", ports=(rule,), until_ready=True))
        host.guest("old").answers["listening"] = unknown
        await manager.wait("old", "ports", 120)
        host.has_agents = False
        await manager.boot(host.request("foreign", ports=(rule,), until_ready=True, until_ports_answer=True))
        await host.stop(end_zones=True)

    run(work())


def test_one_port_of_a_range_is_waited_for_and_of_each_other_rule_its_own(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        host.answering = {80, 5002}
        ends = {80: 8080, **{5000 + number: 15000 + number for number in range(4)}, 6000: 16000, 6001: 17000}
        rules = tuple(PortRule(port, host_address="127.0.0.1", host_port=there) for port, there in ends.items())
        await manager.boot(host.request(ports=rules, until_ready=True))
        with pytest.raises(WaitTimeout, match=r"nothing listens on its port 6000 after"):
            await manager.wait("web", "ports", 0.01)
        host.answering = {80, 5002, 6000, 6001}
        await manager.wait("web", "ports", 120)
        host.answering = {80, 6000, 6001}
        with pytest.raises(WaitTimeout, match=r"nothing listens on its port 5000-5003 after"):
            await manager.wait("web", "ports", 0.01)
        await host.stop(end_zones=True)

    run(work())


def test_events_of_ports_name_the_protocol(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        host.guest().note("port", state="open", port=53, address="0.0.0.0", protocol="udp")
        host.guest().note("port", state="open", port=80, address="::")  # an agent of before there was UDP
        seen: list[dict[str, str]] = []
        async for event in manager.events(from_start=True):
            if event.kind == "port.open":
                seen.append(dict(event.attributes))
            if len(seen) == 2:
                break
        assert seen == [
            {"port": "53", "address": "0.0.0.0", "protocol": "udp"},
            {"port": "80", "address": "::", "protocol": "tcp"},
        ]
        await host.stop(end_zones=True)

    run(work())
