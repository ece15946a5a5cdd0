"""A machine for classic BPF as seccomp runs it, to ask a filter what it says to a system call."""

from __future__ import annotations

import struct
from collections.abc import Sequence

X86_64 = 0xC000003E


def ask(program: bytes, number: int, arguments: Sequence[int] = (), arch: int = X86_64) -> int:
    """The return value for a call. Fails like the kernel's checker on what it would not load."""
    words = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number, arch, 0, *words)
    instructions = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, k = instructions[at]
        at += 1
        if code == 0x20:  # ld [k]
            assert k % 4 == 0 and k < 64, "seccomp loads aligned words of struct seccomp_data"
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x06:  # ret k
            return k
        elif code == 0x05:  # ja
            at += k
        elif code == 0x54:  # and
            accumulator &= k
        else:
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[code]
            at += if_true if holds else if_false


def check(program: bytes) -> None:
    """What the kernel's checker asks for: every jump inside, and a return at the end. net/core/filter.c."""
    instructions = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    assert 0 < len(instructions) <= 4096
    for at, (code, if_true, if_false, k) in enumerate(instructions):
        if code == 0x05:
            assert at + 1 + k < len(instructions)
        elif code in (0x15, 0x25, 0x35):
            assert at + 1 + max(if_true, if_false) < len(instructions)
    assert instructions[-1][0] == 0x06
