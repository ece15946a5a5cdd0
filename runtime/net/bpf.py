"""Classic BPF: which packets a packet or raw socket takes. Programs with names for places; loaded and locked.

Source: linux/filter.h, linux/bpf_common.h, Documentation/networking/filter.rst.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

SO_ATTACH_FILTER = 26  # asm-generic/socket.h; not in Python's socket module
SO_LOCK_FILTER = 44
_LOADS = {
    "ldb": 0x30,
    "ldh": 0x28,
    "ld": 0x20,
    "ldb x+": 0x50,
    "ldh x+": 0x48,
    "ldx": 0x01,
    "ldx header": 0xB1,
    "and": 0x54,
}
_JUMPS = {"jeq": 0x15, "jset": 0x45}
_RETURN = 0x06
TAKE, DROP = "take", "drop"
_RESULTS = {TAKE: 0x40000, DROP: 0}  # how many bytes of the packet; more than any has
NETWORK = 0xFFF00000  # loads from here on are from the IP header, wherever the data begins: SKF_NET_OFF
_INSTRUCTION = struct.Struct("=HBBI")

# (load, offset or constant), (jump, constant, where to if so, where to if not), or the name of the next instruction.
# A place is a name, TAKE or DROP; "" is the next instruction.
Line = tuple[str, int] | tuple[str, int, str, str] | str


def assemble(lines: Sequence[Line]) -> bytes:
    """The program of these lines. Raises KeyError for an unknown word or place. Effects: none."""
    places: dict[str, int] = {}
    instructions: list[tuple[str, int] | tuple[str, int, str, str]] = []
    for line in lines:
        if isinstance(line, str):
            places[line] = len(instructions)
        else:
            instructions.append(line)
    places |= {TAKE: len(instructions), DROP: len(instructions) + 1}
    program = []
    for at, instruction in enumerate(instructions):
        if len(instruction) == 2:
            program.append(_INSTRUCTION.pack(_LOADS[instruction[0]], 0, 0, instruction[1]))
            continue
        word, constant, *targets = instruction
        yes, no = (places[place] - at - 1 if place else 0 for place in targets)
        program.append(_INSTRUCTION.pack(_JUMPS[word], yes, no, constant))
    return b"".join([*program, *(_INSTRUCTION.pack(_RETURN, 0, 0, _RESULTS[result]) for result in (TAKE, DROP))])


def attach(taker: socket.socket, program: bytes) -> None:
    """Give a socket its filter, for good: whoever holds the socket later cannot take it off. Raises OSError."""
    text = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(text))  # struct sock_fprog
    taker.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, header)
    taker.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
