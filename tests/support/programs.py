"""Credential programs: `docker-credential-NAME` in a directory that is put on PATH."""

from __future__ import annotations

from pathlib import Path


def credential_program(directory: Path, name: str, script: str) -> Path:
    """A program; `script` is sh with $LOG, a file it may write what it got to."""
    directory.mkdir(exist_ok=True)
    path = directory / f"docker-credential-{name}"
    log = directory / f"{name}.log"
    path.write_text(f'#!/bin/sh\nLOG={log}\necho "$@" >>$LOG\n{script}\n')
    path.chmod(0o755)
    return log
