"""Runs one command and says what it cost: `python -I -S launcher.py COMMAND ARGUMENT…`, JSON on the last line.

A small process of its own, because the kernel carries the peak memory of a process over to the program it starts: of
a child of the benchmark itself, the benchmark's own memory would be the least that can be measured.
"""

import json
import os
import sys
import time


def main() -> None:
    """CPU and peak memory are those of the command and of every process it waited for."""
    start = time.monotonic()
    child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
    _, status, usage = os.wait4(child, 0)
    spent = {
        "wall_s": time.monotonic() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
        "code": os.waitstatus_to_exitcode(status),
    }
    os.write(1, b"\n" + json.dumps(spent).encode() + b"\n")


main()
