"""Extract the ELF kernel from an image, by a child without privileges; see bzimage.py, which is that child."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from pipeline import tool
from pipeline.errors import SentenceError
from pipeline.initrd.errors import BadKernel
from pipeline.initrd.kernelelf import ELF64_LE, MAX_ELF_BYTES
from pipeline.recipe import PROJECT
from pipeline.store import BlobWriter

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
            os.killpg(process.pid, signal.SIGKILL)
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


def extract_path(path: Path, out: BlobWriter, *, subject: str) -> None:
    """`extract` for a file by its path."""
    with open(path, "rb") as image:
        extract(image, out, subject=subject)
