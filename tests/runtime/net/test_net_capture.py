"""Captures: the file's form, which frames a filter takes, and what a zone's interface shows."""

from __future__ import annotations

import os
import select
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.networld import OUTSIDE4, OUTSIDE6, World, digest_then_echo, receive_all

from runtime.net import bpf
from runtime.net.capture import Capture, CaptureRequest, read_piece
from runtime.net.engine.recorder import HEAD, LONGEST_PIECE_BYTES, PIECE_BYTES, Recorder
from runtime.net.errors import NetworkFault
from runtime.net.pcap import MOST_SNAP_BYTES, RECORD_BYTES, file_header, frame_filter, record


class Frame(NamedTuple):
    unix_s: float
    data: bytes
    was_bytes: int


def read_pcap(data: bytes) -> tuple[int, list[Frame]]:
    """(snap length, frames) of a capture file; fails on one that is damaged."""
    magic, major, minor, zone, accuracy, snap, link = struct.unpack_from("<IHHiIII", data)
    assert (magic, major, minor, zone, accuracy, link) == (0xA1B23C4D, 2, 4, 0, 0, 1)
    at, frames = 24, []
    while at < len(data):
        seconds, nanoseconds, kept, was = struct.unpack_from("<IIII", data, at)
        assert kept <= min(snap, was) and nanoseconds < 10**9
        assert at + 16 + kept <= len(data)
        frames.append(Frame(seconds + nanoseconds / 1e9, data[at + 16 : at + 16 + kept], was))
        at += 16 + kept
    return snap, frames


# -- the form ----------------------------------------------------------------------------------------------------------


def test_file_has_the_form_the_format_says() -> None:
    data = file_header(96) + record(7, 5, b"abc", 60) + record(8, 999_999_999, b"", 14)
    snap, frames = read_pcap(data)
    assert snap == 96
    assert [(frame.data, frame.was_bytes) for frame in frames] == [(b"abc", 60), (b"", 14)]
    assert data[:4] == bytes.fromhex("4d3cb2a1")
    assert len(data) == 24 + 16 + 3 + 16


class Frames:
    """A packet socket with frames of these sizes."""

    def __init__(self, *sizes: int) -> None:
        self._left = list(sizes)

    def recvmsg_into(self, buffers: list[memoryview], ancillary_bytes: int) -> tuple[int, list[Any], int, None]:
        if not self._left:
            raise BlockingIOError
        return min(self._left.pop(0), len(buffers[0])), [], 0, None


def test_longest_frame_behind_as_much_as_one_piece_has_is_read_whole() -> None:
    source: Any = Frames(PIECE_BYTES - 1 - RECORD_BYTES, MOST_SNAP_BYTES)
    with socket.socket() as sink:
        piece = Recorder(source, sink, snap_bytes=MOST_SNAP_BYTES, count=0, seconds=0)._take()
    assert len(piece) == PIECE_BYTES - 1 + RECORD_BYTES + MOST_SNAP_BYTES
    assert HEAD.size + len(piece) <= LONGEST_PIECE_BYTES


# -- the filter --------------------------------------------------------------------------------------------------------

ZONE4, ZONE6, OTHER4, OTHER6 = "10.75.7.2", "fd5a::2", "192.0.2.7", "2001:db8::7"


def ip4(source: str, destination: str, protocol: int, body: bytes, *, options: int = 0, fragment: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45 + options, 0, 20 + 4 * options + len(body), 1, fragment, 64, protocol, 0)
    packed = ip_address(source).packed + ip_address(destination).packed
    return bytes(12) + b"\x08\x00" + head + packed + bytes(4 * options) + body


def ip6(source: str, destination: str, protocol: int, body: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
    return bytes(12) + b"\x86\xdd" + head + ip_address(source).packed + ip_address(destination).packed + body


def arp(source: str, destination: str) -> bytes:
    addresses = bytes(6) + ip_address(source).packed + bytes(6) + ip_address(destination).packed
    return bytes(12) + b"\x08\x06" + b"\0\1\x08\0\6\4\0\1" + addresses


def ports(source: int, destination: int) -> bytes:
    return struct.pack("!HH", source, destination) + bytes(16)


FRAMES = {
    "tcp4 out": ip4(ZONE4, OTHER4, 6, ports(40000, 443)),
    "tcp4 in": ip4(OTHER4, ZONE4, 6, ports(443, 40000)),
    "udp4": ip4(ZONE4, "192.0.2.8", 17, ports(40000, 53)),
    "options": ip4(ZONE4, OTHER4, 6, ports(40000, 443), options=3),
    "later fragment": ip4(ZONE4, OTHER4, 17, ports(40000, 443), fragment=100),
    "first fragment": ip4(ZONE4, OTHER4, 17, ports(40000, 443), fragment=0x2000),
    "icmp4": ip4(ZONE4, OTHER4, 1, ports(443, 443)),
    "tcp6 out": ip6(ZONE6, OTHER6, 6, ports(40000, 443)),
    "tcp6 in": ip6(OTHER6, ZONE6, 6, ports(443, 40000)),
    "almost6": ip6(ZONE6, "2001:db8::8", 6, ports(40000, 53)),
    "extended6": ip6(ZONE6, OTHER6, 60, ports(443, 443)),
    "arp": arp(ZONE4, OTHER4),
    "arp of others": arp("10.75.7.1", ZONE4),
    "lldp": bytes(12) + b"\x88\xcc" + bytes(40),
    "short": b"\x01\x02",
    "cut": ip4(ZONE4, OTHER4, 6, b"")[:30],
}
OF_443 = {"tcp4 out", "tcp4 in", "options", "first fragment", "tcp6 out", "tcp6 in"}


@pytest.mark.parametrize(
    ("host", "port", "taken"),
    [
        ("", 0, set(FRAMES) - {"short"}),
        ("", 443, OF_443),
        ("", 53, {"udp4", "almost6"}),
        ("", 40001, set()),
        (OTHER4, 0, {"tcp4 out", "tcp4 in", "options", "later fragment", "first fragment", "icmp4", "arp"}),
        (OTHER4, 443, {"tcp4 out", "tcp4 in", "options", "first fragment"}),
        (OTHER6, 0, {"tcp6 out", "tcp6 in", "extended6"}),
        (OTHER6, 443, {"tcp6 out", "tcp6 in"}),
        ("2001:db8::8", 0, {"almost6"}),
        (ZONE6, 53, {"almost6"}),
    ],
)
def test_filter_takes_what_is_from_or_to_host_and_port(host: str, port: int, taken: set[str]) -> None:
    """Asked of the kernel: a filter on a local socket sees what is sent as it would see a frame."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        bpf.attach(far, frame_filter(host, port))
        far.setblocking(False)
        found = set()
        for name, frame in FRAMES.items():
            near.send(frame)
            try:
                assert far.recv(4096) == frame
            except BlockingIOError:
                continue
            found.add(name)
    assert found == taken


def test_host_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError):
        frame_filter("example.org")


# -- captures for real -------------------------------------------------------------------------------------------------

root = pytest.mark.root


class Reading:
    """A capture, and what has come of it."""

    def __init__(self, capture: Capture) -> None:
        self.capture, self.data, self.frames, self.lost, self.ended = capture, b"", 0, 0, False

    def until(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert not self.ended, "it has ended before it came"
            if select.select([self.capture.pieces], [], [], max(deadline - time.monotonic(), 0))[0]:
                packet = self.capture.pieces.recv(LONGEST_PIECE_BYTES)
                self.ended = not packet
                if packet:
                    piece = read_piece(packet)
                    self.data += piece.pcap
                    self.frames, self.lost = piece.frames, piece.lost
            assert time.monotonic() < deadline, "it did not come"

    def until_end(self) -> list[Frame]:
        self.until(lambda: self.ended)
        return self.seen()

    def seen(self) -> list[Frame]:
        return read_pcap(self.data)[1] if self.data else []

    def has(self, text: bytes) -> Callable[[], bool]:
        return lambda: any(text in frame.data for frame in self.seen())


@pytest.fixture
def capture(world: World) -> Iterator[Callable[..., Reading]]:
    running: list[Capture] = []

    def begin(**request: object) -> Reading:
        running.append(world.network.capture(CaptureRequest(**request)))  # type: ignore[arg-type]
        return Reading(running[-1])

    yield begin
    for one in running:
        one.close()


def say(world: World, text: bytes, address: str = OUTSIDE4) -> int:
    port = world.serve(world.outside, address, 0, digest_then_echo)
    with world.connect(address, port) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection)[32:] == text
    return port


@root
def test_both_ways_and_both_families_are_seen_with_their_time(world: World, capture: Callable[..., Reading]) -> None:
    world.up()
    began, reading = time.time(), capture()
    for address in (OUTSIDE4, OUTSIDE6):
        say(world, b"said by the zone", address)
    reading.until(lambda: sum(b"said by the zone" in f.data for f in reading.seen()) >= 4)
    frames = reading.seen()
    assert all(began - 1 < frame.unix_s < time.time() + 1 for frame in frames)
    assert all(len(frame.data) == frame.was_bytes for frame in frames)
    zone_mac = bytes.fromhex(world.addresses.zone_mac.replace(":", ""))
    said = [frame for frame in frames if b"said by the zone" in frame.data]
    assert {frame.data[6:12] == zone_mac for frame in said} == {True, False}
    assert {frame.data[12:14] for frame in said} == {b"\x08\x00", b"\x86\xdd"}
    assert (reading.frames, reading.lost) == (len(frames), 0)


@root
def test_frames_the_network_refuses_are_seen_too(world: World, capture: Callable[..., Reading]) -> None:
    world.up()
    say(world, b"the link passes frames")  # the kernel drops what is sent on one that has only just come up
    reading = capture()

    def spoof() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            raw.send(b"\x02\x7a\x77\0\0\x01\x02\x16\0\0\0\x07\x08\0" + b"spoofed" + bytes(50))

    world.in_zone(spoof)
    reading.until(reading.has(b"spoofed"))


@root
def test_vlan_tag_that_the_kernel_takes_out_is_put_back(world: World, capture: Callable[..., Reading]) -> None:
    world.up()
    say(world, b"the link passes frames")
    reading = capture()
    frame = b"\x02\x7a\x77\0\0\x01\x02\x16\0\0\0\x07\x81\x00\x00\x2a\x08\0" + b"tagged" + bytes(50)

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            raw.send(frame)

    world.in_zone(send)
    reading.until(reading.has(b"tagged"))
    (found,) = [one for one in reading.seen() if b"tagged" in one.data]
    assert (found.data, found.was_bytes) == (frame, len(frame))


@root
def test_capture_ends_after_so_many_frames(world: World, capture: Callable[..., Reading]) -> None:
    world.up()
    reading = capture(count=3)
    say(world, b"x" * 10)
    assert len(reading.until_end()) == reading.frames == 3
    world.wait_until(lambda: not reading.capture.alive())


@root
def test_capture_ends_after_its_time_though_nothing_passes(world: World, capture: Callable[..., Reading]) -> None:
    world.up()
    began = time.monotonic()
    reading = capture(seconds=0.4, port=9)
    assert reading.until_end() == []
    assert time.monotonic() - began >= 0.4


@root
def test_filter_and_snap_length_bound_what_comes(world: World, capture: Callable[..., Reading]) -> None:
    world.up()
    other = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    port = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    reading = capture(port=port, host=OUTSIDE4, snap_bytes=60)
    for number in (other, port):
        with world.connect(OUTSIDE4, number) as connection:
            connection.sendall(bytes(1000))
            connection.shutdown(socket.SHUT_WR)
            receive_all(connection)
    reading.until(lambda: any(f.was_bytes > 1000 for f in reading.seen()))
    snap, frames = read_pcap(reading.data)
    assert snap == 60
    assert max(len(frame.data) for frame in frames) == 60
    assert all(port in struct.unpack_from("!HH", frame.data, 34) for frame in frames)


@root
def test_reader_that_is_slow_loses_frames_and_is_told_how_many(world: World, capture: Callable[..., Reading]) -> None:
    world.up()
    say(world, b"the link passes frames")
    reading = capture()
    sent = 12_000

    def flood() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            for number in range(sent):
                raw.send(b"\x02\x7a\x77\0\0\x01\x02\x16\0\0\0\x07\x08\0" + struct.pack("!I", number) + bytes(1400))

    world.in_zone(flood)
    status = Path(f"/proc/{reading.capture._child.pid}/status").read_text()
    assert int(status.split("VmRSS:")[1].split()[0]) < 40_000, "it holds no more than a piece"
    reading.until(lambda: reading.frames + reading.lost >= sent)
    assert reading.lost > 0
    frames = reading.seen()
    assert len(frames) == reading.frames


@root
def test_network_that_ends_ends_its_captures_and_nothing_stays(world: World, capture: Callable[..., Reading]) -> None:
    network = world.up()
    reading = capture()
    reading.until(lambda: bool(reading.data))
    pid = reading.capture._child.pid
    network.destroy()
    reading.until_end()
    assert not Path(f"/proc/{pid}").exists()
    # The veth dies with the namespace: the capture does not hold it.
    world.wait_until(lambda: "eth0" not in world.of(world.zone, lambda: [name for _, name in socket.if_nameindex()]))


@root
def test_interface_that_goes_ends_the_capture(world: World, capture: Callable[..., Reading]) -> None:
    world.up()
    reading = capture()
    reading.until(lambda: bool(reading.data))
    world.replace_vif("vif9.0")
    reading.until_end()


@root
def test_recorder_ends_when_its_reader_does(world: World, capture: Callable[..., Reading]) -> None:
    world.up()
    reading = capture()
    reading.until(lambda: bool(reading.data))
    reading.capture.pieces.close()
    world.wait_until(lambda: not reading.capture.alive())


@root
def test_recorder_is_confined_as_an_engine_is(world: World, capture: Callable[..., Reading]) -> None:
    world.up()
    reading = capture()
    reading.until(lambda: bool(reading.data))
    process = Path(f"/proc/{reading.capture._child.pid}")
    fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    found = [fields[name].strip() for name in ("CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")]
    assert found == ["0" * 16, "0" * 16, "0" * 16, "1", "2"]
    assert fields["Uid"].split() == ["64007"] * 4
    assert os.listdir(process / "root") == []
    kinds = [os.readlink(entry) for entry in sorted((process / "fd").iterdir(), key=lambda entry: int(entry.name))]
    assert kinds[:2] == ["/dev/null", "/dev/null"]
    assert [kind.partition(":")[0] for kind in kinds[3:]] == ["socket", "socket"]


@root
def test_requests_that_make_no_sense_are_refused_in_a_sentence(world: World) -> None:
    world.up()
    for request, sentence in (
        (CaptureRequest(host="example.org"), "expected the host an address, got 'example.org'"),
        (CaptureRequest(port=65536), "a port up to 65535"),
        (CaptureRequest(snap_bytes=MOST_SNAP_BYTES + 1), f"at most {MOST_SNAP_BYTES} bytes of a frame"),
        (CaptureRequest(seconds=float("nan")), "expected seconds from 0 on"),
        (CaptureRequest(seconds=-1), "expected seconds from 0 on"),
    ):
        with pytest.raises(NetworkFault) as caught:
            world.network.capture(request)
        assert sentence in str(caught.value)


@root
def test_captures_at_once_are_few_and_there_is_none_without_a_zone(
    world: World, capture: Callable[..., Reading]
) -> None:
    world.on_host(world.network.create)
    with pytest.raises(NetworkFault, match="expected its zone attached"):
        capture()
    world.on_host(lambda: world.network.attach("vif7.0"))
    first, *_ = [capture() for _ in range(4)]
    with pytest.raises(NetworkFault, match="expected at most 4 at once"):
        capture()
    first.capture.close()
    capture()


@root
def test_tcpdump_reads_the_file(world: World, capture: Callable[..., Reading]) -> None:
    if shutil.which("tcpdump") is None:
        pytest.skip("needs tcpdump")
    world.up()
    reading = capture(count=5)
    say(world, b"seen by others")
    reading.until_end()
    done = subprocess.run(["tcpdump", "-Z", "root", "-nr", "-"], input=reading.data, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
