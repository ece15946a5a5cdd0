"""Extract the ELF kernel from an image in a child without privileges, and the child itself.

`python -m pipeline.initrd.bzimage SUBJECT` reads an image from descriptor 0, writes the ELF file to 1 and, when it
refuses, the parts of the error as one JSON object to 2. Kernel images come from registries, and decompressors and ELF
parsers are where toolstacks have been broken into (XSA-25, XSA-55, XSA-443): before the first byte is read the child
has become nobody (as root), may open nothing, start nothing, and use a bounded amount of memory and time.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, NoReturn

from pipeline import tool
from pipeline.errors import SentenceError
from pipeline.initrd.errors import BadKernel
from pipeline.initrd.kernelelf import ELF64_LE, MAX_ELF_BYTES, kernel_elf
from pipeline.recipe import PROJECT
from pipeline.store import BlobWriter

MAX_IMAGE_BYTES = 256 << 20
NOBODY = 65534
_MEMORY_BYTES = 1 << 30
_CPU_S = 120
_TIMEOUT_S = 300.0
_CHUNK_BYTES = 1 << 20
_MAX_ERROR_BYTES = 1 << 16


def extract(image: IO[bytes], out: BlobWriter, *, subject: str) -> None:
    """Write the ELF kernel of an image to `out`.

    image:   an open file, read by the child.
    Raises:  BadKernel.
    """
    argv = [sys.executable, "-m", "pipeline.initrd.bzimage", subject]
    process = subprocess.Popen(
        argv,
        stdin=image,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=tool.BASE_ENV | {"PYTHONPATH": str(PROJECT)},
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None
    timer_end = signal.SIGKILL
    try:
        total, head = 0, b""
        while chunk := process.stdout.read(_CHUNK_BYTES):
            total, head = total + len(chunk), (head + chunk)[:6] if len(head) < 6 else head
            if total > MAX_ELF_BYTES:
                break
            out.write(chunk)
        said = process.stderr.read(_MAX_ERROR_BYTES)
        returncode = process.wait(_TIMEOUT_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, timer_end)
            process.wait()
        process.stdout.close()
        process.stderr.close()
    if returncode != 0:
        raise _refusal(subject, returncode, said)
    if total > MAX_ELF_BYTES or head != ELF64_LE:  # the child is not believed
        raise BadKernel(subject, expected="an ELF kernel of bounded size", got=f"{total} bytes that begin {head!r}")


def _refusal(subject: str, returncode: int, said: bytes) -> SentenceError:
    if returncode < 0:
        how = signal.Signals(-returncode).name
        return BadKernel(
            subject, expected="a kernel that unpacks within its limits", got=f"unpacking was ended by {how}"
        )
    try:
        fields = json.loads(said)
        return BadKernel(
            str(fields["subject"]), expected=str(fields["expected"]), got=str(fields["got"]), hint=str(fields["hint"])
        )
    except (ValueError, KeyError, TypeError):
        tail = said.decode("utf-8", "replace").strip().splitlines()[-1:]
        return BadKernel(subject, expected="a kernel that can be unpacked", got=(tail or ["no reason"])[0][:300])


def main() -> NoReturn:
    """The child. Everything it needs is imported before it gives its rights away."""
    import libarchive  # noqa: F401
    import zstandard  # noqa: F401

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


def extract_path(path: Path, out: BlobWriter, *, subject: str) -> None:
    """`extract` for a file by its path."""
    with open(path, "rb") as image:
        extract(image, out, subject=subject)


if __name__ == "__main__":
    main()
