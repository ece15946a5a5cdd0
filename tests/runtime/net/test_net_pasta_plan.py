"""The engine pasta without one: versions, the command line, refusals, and its rules held against policy.decide."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest
from support.networld import wait_for_links
from support.tools import require

from pipeline.bundle.egress import ICMP, TCP, UDP, parse_rule
from pipeline.bundle.model import Port
from runtime.net import commands, guardcounter, netlink, netns, pool
from runtime.net import plan as nets
from runtime.net.addresses import GATEWAY_MAC, plan_addresses
from runtime.net.errors import EngineFault, NetworkFault
from runtime.net.layouts import PastaLayout, engine_named, layout_of
from runtime.net.pasta import hostaddresses, plan, version
from runtime.net.policy import decide
from runtime.net.segment import Segment

ZONE = plan_addresses(7)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("pasta 2025_05_03.587980c\nCopyright Red Hat\n", (2025, 5, 3)),
        ("pasta 0.0~git20250503.587980c-2+deb13u1\n", (2025, 5, 3)),
        ("pasta 0^20260120.g386b5f5-1.fc43.x86_64\n", (2026, 1, 20)),
        ("pasta unknown version\n", None),
        ("passt 2025_05_03.587980c\n", None),
        ("", None),
        ("pasta\n2025_05_03\n", None),
    ],
)
def test_version_is_its_date(said, expected):
    assert version.version_of(said) == expected


@pytest.mark.parametrize(
    ("said", "got"),
    [
        ("pasta 0.0~git20230309.7c7625d-1\n", "2023_03_09"),
        ("pasta 2025_05_02.0000000\n", "2025_05_02"),
        ("pasta unknown version\nCopyright\n", "pasta unknown version"),
        ("", "nothing"),
    ],
)
def test_version_that_will_not_do_is_refused_in_a_sentence_that_names_both(said, got):
    with pytest.raises(EngineFault) as caught:
        version.check_version("/usr/bin/pasta", said)
    assert str(caught.value) == (
        f"network engine pasta, /usr/bin/pasta: expected version 2025_05_03 or later, got {got}"
        " (Debian 12's package is 2023_03_09; Debian 13's will do, and so will the engine splice)"
    )


def test_versions_that_will_do_are_taken():
    version.check_version("pasta", "pasta 2025_05_03.587980c\n")
    version.check_version("pasta", "pasta 2026_01_20.386b5f5\n")


def test_a_host_without_pasta_is_told_which_package_has_it(monkeypatch, tmp_path):
    monkeypatch.setattr(version, "PATH", str(tmp_path))
    with pytest.raises(
        EngineFault, match=r"expected program pasta in .*, got none \(package passt, 2025_05_03 or later"
    ):
        version.find_pasta()


def test_what_is_said_to_a_terminal_alone_is_read(monkeypatch, tmp_path):
    program = tmp_path / "pasta"
    program.write_text("#!/bin/sh\nif test -t 1; then echo 'pasta 2025_05_03.587980c'; fi\n")
    program.chmod(0o755)
    monkeypatch.setattr(version, "PATH", str(tmp_path))
    assert version.find_pasta() == str(program)


def test_a_program_that_says_nothing_is_refused(monkeypatch, tmp_path):
    program = tmp_path / "pasta"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    with pytest.raises(EngineFault, match="got nothing"):
        version.check_version(str(program), version.ask_version(str(program)))


def argv(*ports: Port, resolvers: tuple[str, str] = ("", "")) -> list[str]:
    return plan.pasta_argv(
        "pasta", ZONE, ports, uid=64007, mtu=1400, resolvers=resolvers, userns="/u", netns="/n", ready="/r"
    )


def pairs(words: Sequence[str], name: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == name]


def test_command_line_opens_nothing_by_itself():
    words = argv()
    for option in ("--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"):
        assert pairs(words, option) == ["none"], option
    assert {"--no-map-gw", "--no-splice", "--no-netns-quit", "--foreground"} <= set(words)
    assert pairs(words, "--runas") == ["64007:64007"]
    assert pairs(words, "--address") == ["10.75.7.2", "fd5a:6f6e:6577:7::2"]
    assert pairs(words, "--gateway") == ["10.75.7.1", "fd5a:6f6e:6577:7::1"]
    assert pairs(words, "--map-guest-addr") == pairs(words, "--gateway")  # so that no neighbour's MAC is the gateway's
    assert pairs(words, "--mtu") == ["1400"]
    assert "--dns-forward" not in words and "--config-net" not in words and "--ns-mac-addr" not in words


def test_command_line_has_ports_and_name_servers():
    words = argv(Port("127.0.0.1", 8080, 80), Port("::1", 53, 5353, "udp"), resolvers=("192.0.2.53", ""))
    assert pairs(words, "--tcp-ports") == ["127.0.0.1/8080:80"]
    assert pairs(words, "--udp-ports") == ["::1/53:5353"]
    assert (pairs(words, "--dns-forward"), pairs(words, "--dns-host")) == (["10.75.7.1"], ["192.0.2.53"])


def test_a_port_that_pasta_may_not_bind_is_told_with_what_can():
    ports = [Port("192.0.2.1", number, 80) for number in (8080, 80, 443)]
    said = "Listen failed for HOST TCP port 192.0.2.1/80: Permission denied"
    assert "no port below 1024, here 80, 443; the engine splice can" in plan.hint_of_low_ports(ports, 1024, said)
    assert plan.hint_of_low_ports(ports, 80, said) == ""
    assert plan.hint_of_low_ports(ports, 1024, said.replace("Permission denied", "Address already in use")) == ""


def test_one_name_server_of_each_family_is_chosen():
    assert plan.choose_resolvers(("::1", "192.0.2.1", "2001:db8::1", "192.0.2.2")) == ("192.0.2.1", "::1")
    assert plan.choose_resolvers(()) == ("", "")


def test_ports_that_differ_by_their_address_alone_are_refused():
    same = [Port("127.0.0.1", 8080, 80), Port("192.0.2.1", 8080, 80), Port("192.0.2.1", 8080, 81, "udp")]
    plan.check_ports(same, "zone web")
    with pytest.raises(
        NetworkFault, match="one port of the zone for port 8080/tcp, whatever address it is of, got 80 and 81"
    ):
        plan.check_ports([*same, Port("192.0.2.2", 8080, 81)], "zone web")


@pytest.mark.parametrize("text", ["allow 127.0.0.1 5432", "allow 127.0.0.0/8", "allow ::1"])
def test_rules_that_open_the_hosts_loopback_are_refused(text):
    with pytest.raises(NetworkFault, match="no egress rule that opens the host's loopback"):
        plan.check_egress([parse_rule("deny any 25"), parse_rule(text)], "zone web")
    plan.check_egress([parse_rule(text.replace("allow", "deny")), parse_rule("allow any")], "zone web")


def test_a_shared_network_is_refused():
    with pytest.raises(NetworkFault, match=r"network back: expected an engine for several zones, got pasta"):
        Segment("back", ZONE, 1500, lambda kind, **fields: None, shared=True, engine=engine_named("pasta"))


def test_engines_are_known_by_name():
    assert [engine_named(name).name for name in ("", "splice", "pasta")] == ["splice", "splice", "pasta"]
    for function in (engine_named, layout_of):
        with pytest.raises(NetworkFault, match="expected splice or pasta, got 'slirp'"):
            function("slirp")


def test_the_hosts_addresses_are_read_from_what_ip_says():
    said = '[{"type":"local","dst":"203.0.113.1","dev":"up0"},{"type":"local","dst":"127.0.0.0/8","dev":"lo"}]'
    assert hostaddresses.destinations(4, said) == ["203.0.113.1/32", "127.0.0.0/8"]
    assert hostaddresses.destinations(6, "") == []


def test_a_default_route_is_the_hosts_addresses_only_where_every_packet_is_asked_of():
    for table in ("", ',"table":"local"', ',"table":"default"'):
        assert hostaddresses.destinations(6, f'[{{"type":"local","dst":"default"{table}}}]') == ["::/0"]
    marked = '[{"type":"local","dst":"default","dev":"lo","table":"100"},{"dst":"192.0.2.0/24","table":"100"}]'
    assert hostaddresses.destinations(4, marked) == ["192.0.2.0/24"]


# -- the rules against the function that says what they should be ----------------------------------------------------

HOST = plan.HostAddresses(
    own=("127.0.0.0/8", "::1/128", "203.0.113.1/32", "203.0.113.9/32", "2001:db8:1::1/128", "169.254.9.9/32"),
    barred=("203.0.113.255/32", "2001:db8:1::/128"),
)
DENY = (ip_network("10.0.2.0/24"), ip_network("2001:db8:dead::/48"))
RULES = [
    [],
    ["deny any"],
    ["allow any", "deny any"],
    ["deny any 25/tcp", "deny any icmp", "allow 0.0.0.0/0 53", "deny 192.0.2.0/24 udp"],
    ["allow 203.0.113.1 80-443/tcp", "deny 203.0.113.0/24", "allow 203.0.113.9"],
    ["allow 203.0.113.0/24", "allow 169.254.0.0/16 80", "allow 169.254.9.9 443/tcp", "allow 2001:db8:1::/64"],
    ["allow 2001:db8:1::1 443/tcp", "deny ::/0 tcp", "deny 192.0.2.7 1-1024", "allow 168.63.129.16 icmp"],
    [
        "allow 169.0.0.0/8",
        "allow 100.100.100.200 80/tcp",
        "deny 100.100.0.0/16",
        "allow 10.0.2.2",
        "allow 192.0.2.7 udp",
    ],
]
DESTINATIONS = [
    *("192.0.2.7", "192.0.2.200", "203.0.113.1", "203.0.113.9", "203.0.113.2", "203.0.113.255", "169.254.169.254"),
    *("169.254.9.9", "168.63.129.16", "100.100.100.200", "100.100.7.7", "10.75.99.2", "10.0.2.2", "0.1.2.3"),
    *("240.0.0.1", "8.8.8.8", "2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::", "2001:db8:dead::1", "64:ff9b::7f00:1"),
    *("2002:7f00:1::1", "fd00:ec2::254", "fd5a:6f6e:6577:63::2", "2600::1", "fe80::99", "::7f00:1"),
]
POOLED = [("10.75.99.2", "fd5a:6f6e:6577:63::2"), ("172.30.9.2", "fd00:1:2:1::2")]
TPROXY_ROUTES = ("rule add fwmark 1 lookup 100", "route add local default dev lo table 100")
FLOWS = [(TCP, 25), (TCP, 53), (TCP, 80), (TCP, 443), (UDP, 53), (UDP, 80), (UDP, 2000), (ICMP, 0)]


def route_of(address: str) -> str:
    """As the host's routing would say it, see HOST."""
    for kind, networks in (("local", HOST.own), ("broadcast", HOST.barred)):
        for network in map(ip_network, networks):
            if ip_address(address) in network:
                return kind
    return "unicast"


def frame(destination: str, protocol: str, port: int, *, flags: int = 0x02) -> bytes:
    """What the zone sends to begin something there."""
    v6 = ":" in destination
    numbers = {TCP: 6, UDP: 17, ICMP: 58 if v6 else 1}
    body = {
        TCP: struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 0x50, flags, 1000, 0, 0),
        UDP: struct.pack("!HHHH", 40000, port, 8, 0),
        ICMP: struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, 1, 1),
    }[protocol]
    ends = [socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, item) for item in (ends_of(v6), destination)]
    if v6:
        header = struct.pack("!IHBB", 6 << 28, len(body), numbers[protocol], 64) + b"".join(ends)
    else:
        bare = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, numbers[protocol], 0) + b"".join(ends)
        header = bare[:10] + struct.pack("!H", checksum(bare)) + bare[12:]
    macs = bytes.fromhex((GATEWAY_MAC + ZONE.zone_mac).replace(":", ""))
    return macs + (b"\x86\xdd" if v6 else b"\x08\x00") + header + body


def ends_of(v6: bool) -> str:
    return ZONE.zone6 if v6 else ZONE.zone4


def checksum(header: bytes) -> int:
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def arp() -> bytes:
    """A question for the gateway, which passes whatever the rules are: what came before it has come, or never will."""
    mac, own, gateway = (bytes.fromhex(ZONE.zone_mac.replace(":", "")), ZONE.zone4, ZONE.gateway4)
    ask = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + socket.inet_aton(own) + bytes(6) + socket.inet_aton(gateway)
    return b"\xff" * 6 + mac + b"\x08\x06" + ask


class Bridge:
    """A network as PastaLayout lays it out, with a veth in pasta's place."""

    def __init__(self, stack) -> None:
        self.name = f"zwt{os.getpid()}-bridge"
        netns.create(self.name)
        stack(lambda: netns.delete(self.name))
        netns.inside(self.name, self._make)
        wait_for_links(self.name, "eth0", "pasta0", "vif0", plan.TAP, nets.BRIDGE)

    def _make(self) -> None:
        PastaLayout().lay_out("a test", ZONE, 1500)
        lines = [
            "link add vif0 type veth peer name eth0",
            f"link add {plan.TAP} type veth peer name pasta0",
            f"link set eth0 address {ZONE.zone_mac} up",
            "link set pasta0 up",
            *plan.neighbour_lines(ZONE),
        ]
        commands.feed(["ip", "-batch", "-"], "\n".join(lines) + "\n", subject="test")
        netlink.enslave_link("vif0", nets.BRIDGE, 1500, group=ZONE.host, mac=ZONE.zone_mac)
        netlink.enslave_link(plan.TAP, nets.BRIDGE, 1500, group=0, mac=GATEWAY_MAC)
        self.zone, self.pasta = (socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) for _ in range(2))
        self.pasta.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.zone.bind(("eth0", 0))
        self.pasta.bind(("pasta0", 0x0003))
        self.pasta.settimeout(20)

    def load(self, rules: Sequence[str], resolver6: str = "") -> None:
        text = plan.ruleset(
            *(ZONE, ZONE),
            rules=[parse_rule(item) for item in rules],
            deny=DENY,
            host=HOST,
            resolvers=("192.0.2.53", resolver6),
        )
        netns.inside(self.name, lambda: commands.feed(["nft", "-f", "-"], "flush ruleset\n" + text, subject="test"))

    def passed(self, frames: Sequence[bytes]) -> set[bytes]:
        """Those that reach pasta."""
        for item in frames:
            self.zone.send(item)
        self.zone.send(arp())
        came = set()
        while (item := self.pasta.recv(2048)) != arp():
            came.add(item)
        return came & set(frames)


@pytest.fixture
def bridge(request):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    require("ip", "nft")
    made = Bridge(request.addfinalizer)
    yield made
    made.zone.close()
    made.pasta.close()


@pytest.mark.root
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: ", ".join(rules) or "none")
def test_rules_let_begin_what_policy_decides(bridge, rules):
    bridge.load(rules)
    questions = {
        frame(address, protocol, port): (address, protocol, port)
        for address in DESTINATIONS
        for protocol, port in FLOWS
    }
    parsed = [parse_rule(item) for item in rules]
    expected = {
        question
        for question in questions.values()
        if decide(
            ip_address(question[0]),
            route=route_of(question[0]),
            port=question[2],
            protocol=question[1],
            deny=DENY,
            rules=parsed,
        ).allowed
    }
    assert {questions[item] for item in bridge.passed(list(questions))} == expected
    assert expected or rules == ["deny any"]


@pytest.mark.root
def test_a_host_that_takes_marked_packets_for_its_own_has_no_other_addresses_for_it(request):
    name = f"zwt{os.getpid()}-marked"
    netns.create(name)
    request.addfinalizer(lambda: netns.delete(name))
    lines = ["link set lo up", "address add 192.0.2.1/24 dev lo", "address add 2001:db8::1/64 dev lo nodad"]
    netns.inside(name, lambda: commands.feed(["ip", "-batch", "-"], "\n".join(lines) + "\n", subject="test"))
    before = netns.inside(name, hostaddresses.read)
    assert {"192.0.2.1/32", "2001:db8::1/128"} <= set(before.own)
    text = "".join(f"{line}\n" for line in TPROXY_ROUTES)
    for family in ("-4", "-6"):
        netns.inside(name, lambda f=family: commands.feed(["ip", f, "-batch", "-"], text, subject="test"))
    assert netns.inside(name, hostaddresses.read) == before


@pytest.mark.root
def test_other_networks_are_closed_wherever_the_pools_are(bridge, monkeypatch):
    usual, other = ((frame(v4, UDP, 2000), frame(v6, UDP, 2000)) for v4, v6 in POOLED)
    bridge.load([])
    assert bridge.passed([*usual, *other]) == set(other)
    monkeypatch.setattr(pool, "_used", pool.parse_pools("172.30.8.0/22", "fd00:1:2::/62"))
    bridge.load([])
    assert bridge.passed([*usual, *other]) == set(usual)


@pytest.mark.root
def test_only_a_bare_syn_begins_and_its_disguises_are_none(bridge):
    bridge.load(["deny any"])
    begins = [frame("192.0.2.7", TCP, 80, flags=flags) for flags in range(64) if flags & 0x12 == 0x02]
    goes_on = [frame("192.0.2.7", TCP, 80, flags=flags) for flags in range(64) if flags & 0x12 != 0x02]
    assert bridge.passed([*begins, *goes_on]) == set(goes_on)


@pytest.mark.root
def test_an_answer_passes_a_rule_against_it_to_whom_asked_alone(bridge):
    bridge.load(["deny any"])
    answer, other = frame("192.0.2.7", UDP, 2000), frame("192.0.2.7", UDP, 2001)
    assert bridge.passed([answer, other]) == set()
    packet = struct.pack("!BBHHHBBH", 0x45, 0, 28, 1, 0, 64, 17, 0)
    packet += socket.inet_aton("192.0.2.7") + socket.inet_aton(ZONE.zone4)
    packet = packet[:10] + struct.pack("!H", checksum(packet)) + packet[12:] + struct.pack("!HHHH", 2000, 40000, 8, 0)
    macs = bytes.fromhex((ZONE.zone_mac + GATEWAY_MAC).replace(":", ""))
    bridge.pasta.send(macs + b"\x08\x00" + packet)
    assert bridge.passed([answer, other]) == {answer}


@pytest.mark.root
def test_a_zone_hears_of_the_gateways_mac_alone(bridge):
    """Later versions of pasta send with the MACs of the host's neighbours, and announce these."""
    bridge.load([])
    zone, gateway, other = (bytes.fromhex(mac.replace(":", "")) for mac in (ZONE.zone_mac, GATEWAY_MAC, "020000000066"))

    def arp_of(mac: bytes) -> bytes:
        words = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + mac + socket.inet_aton("192.0.2.7") + bytes(10)
        return zone + mac + b"\x08\x06" + words

    def advertisement_of(mac: bytes) -> bytes:
        target = socket.inet_pton(socket.AF_INET6, "2001:db8::7")
        header = struct.pack("!IHBB", 6 << 28, 32, 58, 255) + target + socket.inet_pton(socket.AF_INET6, "ff02::1")
        return zone + gateway + b"\x86\xdd" + header + struct.pack("!BBHI", 136, 0, 0, 0) + target + b"\x02\x01" + mac

    datagram, last = (zone + other + frame("192.0.2.7", UDP, port)[12:] for port in (2000, 2001))
    told = [arp_of(gateway), advertisement_of(gateway)]
    heard = []
    with netns.inside(bridge.name, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as zone_hears:
        zone_hears.bind(("eth0", 0x0003))
        zone_hears.settimeout(20)
        for item in (datagram, arp_of(other), advertisement_of(other), *told, last):
            bridge.pasta.send(item)
        while not heard or heard[-1][12:] != last[12:]:
            heard.append(zone_hears.recv(2048))
    came = [item for item in heard if item[:6] == zone]
    assert came == [zone + gateway + datagram[12:], *told, zone + gateway + last[12:]]


@pytest.mark.root
def test_who_is_not_the_zone_is_not_heard(bridge):
    bridge.load([])
    good = frame("192.0.2.7", UDP, 2000)
    other_mac = good[:6] + bytes.fromhex("00163e4b0799") + good[12:]
    header = bytearray(good[14:34])
    header[12:16] = socket.inet_aton("10.75.7.9")
    header[10:12] = bytes(2)
    header[10:12] = struct.pack("!H", checksum(bytes(header)))
    other_address = good[:14] + bytes(header) + good[34:]
    fragment = bytearray(good)
    fragment[20] = 0x20
    fragment[24:26] = bytes(2)
    fragment[24:26] = struct.pack("!H", checksum(bytes(fragment[14:34])))
    tagged = good[:12] + b"\x81\x00\x00\x01" + good[12:]
    assert bridge.passed([good, other_mac, other_address, bytes(fragment), tagged]) == {good}
    # The tagged one is no zone's: it goes before anyone asks whose it is.
    assert netns.inside(bridge.name, lambda: guardcounter.refused(ZONE.host)) == 3


@pytest.mark.root
def test_questions_to_the_gateway_pass_without_extension_headers_alone(bridge):
    """As all else of IPv6 does: a hop-by-hop header, routing, a fragment, authentication, options."""
    bridge.load(["deny any"], "2001:db8::53")
    plain = [frame(ZONE.gateway6, protocol, 53) for protocol in (TCP, UDP)]
    behind = []
    for whole in plain:
        for kind in (0, 43, 44, 51, 60):
            extension = bytes([whole[20], 4 if kind == 51 else 0]) + (bytes(22) if kind == 51 else bytes(6))
            size = len(whole) - 54 + len(extension)
            behind.append(whole[:18] + struct.pack("!HB", size, kind) + whole[21:54] + extension + whole[54:])
    assert bridge.passed([*plain, *behind]) == set(plain)


@pytest.mark.root
def test_a_network_without_its_zone_lets_nothing_in(bridge):
    assert "policy drop" in netns.inside(bridge.name, lambda: os.popen("nft list ruleset").read())
    bridge.zone.send(frame("192.0.2.7", UDP, 2000))
    bridge.zone.send(arp())
    bridge.load([])
    only = frame("192.0.2.7", UDP, 2001)
    bridge.zone.send(only)
    while (came := bridge.pasta.recv(2048))[12:14] != b"\x08\x00":
        assert came != arp()
    assert came == only
