"""Great outputs and inputs come whole, in order and once, also past hosts that die; of full size in the long runs."""

import os
import random
import struct

import pytest
from support.zonebox import IDLE

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts"),
]
BLOCK = 4096
# Each block is its own number over and over: what is lost, doubled or out of order shows where it is.
BLOCKS = 'for($i=0;$i<%d;$i++){print pack("N",$i)x1024}'
SIZES = [16 << 20, pytest.param(1 << 30, marks=pytest.mark.soak)]


def blocks(start: int, size: int) -> bytes:
    """The bytes from an offset on."""
    first = start // BLOCK
    whole = b"".join(struct.pack(">I", number) * 1024 for number in range(first, (start + size) // BLOCK + 1))
    return whole[start - first * BLOCK :][:size]


class Checked:
    """What a stream brings, looked at as it comes and then let go."""

    def __init__(self, size: int) -> None:
        self.size, self.count = size, 0

    def take(self, data: bytearray) -> None:
        assert data == blocks(self.count, len(data)), f"behind byte {self.count}"
        self.count += len(data)
        data.clear()


@pytest.mark.parametrize("size", SIZES)
def test_output_arrives_whole(start, size):
    zone = start({"argv": ["perl", "-e", BLOCKS % (size // BLOCK)]})
    logs, came = zone.host.open("logs", container="main"), Checked(size)
    while logs.result is None:
        zone.host.take(20)
        came.take(logs.data[1])
    assert came.count == size and not logs.events and zone.wait()[1].endswith("code 0")


@pytest.mark.parametrize("size", SIZES)
def test_what_goes_into_an_exec_comes_out_of_it_whole(start, size):
    zone = start(IDLE)
    echo, came = zone.host.open("exec", container="main", process={"argv": ["cat"]}), Checked(size)
    for at in range(0, size, 1 << 16):
        echo.write(blocks(at, 1 << 16))
        came.take(echo.data[1])
    echo.eof()
    while echo.result is None:
        zone.host.take(20)
        came.take(echo.data[1])
    assert came.count == size and echo.result["ok"]["exit"] == {"code": 0}


@pytest.mark.parametrize("keeps", ["all it took", "what it acknowledged"])
@pytest.mark.parametrize("size", SIZES)
def test_hosts_that_die_lose_nothing_that_was_acknowledged(start, size, keeps):
    """Each goes on where the one before it had stored something for good: at what it took, or only acknowledged."""
    zone = start({"argv": ["perl", "-e", BLOCKS % (size // BLOCK)]})
    came = Checked(size)
    chance = random.Random(size)
    for dies_at in [*sorted(chance.sample(range(size), 20)), size]:
        logs = zone.host.open("logs", container="main", **{"from": {"1": came.count}})
        while came.count < dies_at:
            zone.host.take(20)
            came.take(logs.data[1])
        if dies_at < size:
            if keeps == "what it acknowledged":
                came.count -= logs.owed[1]
            (main,) = zone.host.hello()["containers"]
            assert main["output"]["1"][0] <= came.count
    logs.wait()
    assert came.count == size and not logs.events and zone.wait()[1].endswith("code 0")
