"""The child that reads kernel images: `python -m pipeline.initrd.bzimage SUBJECT`.

An image comes in on descriptor 0, the ELF file goes out on 1 and, when it is refused, the parts of the error as one
JSON object on 2. Kernel images come from registries, and decompressors and ELF parsers are where toolstacks have been
broken into (XSA-25, XSA-55, XSA-443): before the first byte is read the child has become nobody (as root), may open
nothing, start nothing, and use a bounded amount of memory and time. The parent's half is extract.py.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import NoReturn

from pipeline.errors import SentenceError
from pipeline.initrd.errors import BadKernel
from pipeline.initrd.kernelelf import kernel_elf, load_libraries

MAX_IMAGE_BYTES = 256 << 20
NOBODY = 65534
_MEMORY_BYTES = 1 << 30
_CPU_S = 120


def main() -> NoReturn:
    """The child. Everything it needs is loaded before it gives its rights away."""
    load_libraries()
    subject = sys.argv[1]
    confine()
    try:
        image = sys.stdin.buffer.read(MAX_IMAGE_BYTES + 1)
        if len(image) > MAX_IMAGE_BYTES:
            raise BadKernel(subject, expected=f"at most {MAX_IMAGE_BYTES >> 20} MiB", got="more")
        elf = memoryview(kernel_elf(image, subject=subject))
    except SentenceError as error:
        _fail({"subject": error.subject, "expected": error.expected, "got": error.got, "hint": error.hint})
    except MemoryError:
        limit = f"a kernel that unpacks in {_MEMORY_BYTES >> 20} MiB"
        _fail({"subject": subject, "expected": limit, "got": "one that needs more", "hint": ""})
    while elf:
        elf = elf[os.write(1, elf) :]
    os._exit(0)


def confine() -> None:
    """Give up what parsing does not need."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # 0, 1 and 2 are open: no file and no socket any more


def _fail(fields: dict[str, str]) -> NoReturn:
    os.write(2, json.dumps(fields).encode())
    os._exit(1)


if __name__ == "__main__":
    main()
