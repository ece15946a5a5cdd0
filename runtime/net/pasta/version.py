"""Where pasta is, and whether it is of a version that does what a zone's network needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from runtime.net.errors import EngineFault

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
# Debian 13's. With Debian 12's, 2023_03_09, a refused connection times out, and so does a published port whose server
# speaks first.
NEEDED = (2025, 5, 3)
_TIMEOUT_S = 20.0
_DATE = re.compile(r"(20\d\d)_?(\d\d)_?(\d\d)")


def find_pasta() -> str:
    """The program, of a version that will do. Raises EngineFault."""
    program = shutil.which("pasta", path=PATH)
    if program is None:
        hint = f"package passt, {_text(NEEDED)} or later, or the engine splice"
        raise EngineFault("network engine pasta", expected=f"program pasta in {PATH}", got="none", hint=hint)
    check_version(program, ask_version(program))
    return program


def check_version(program: str, said: str) -> None:
    """Raises EngineFault for what a program said of itself, where that is no version that will do."""
    found = version_of(said)
    if found is not None and found >= NEEDED:
        return
    got = _text(found) if found else (" ".join(said.split("\n")[0].split())[:80] or "nothing")
    hint = "Debian 12's package is 2023_03_09; Debian 13's will do, and so will the engine splice"
    raise EngineFault(
        f"network engine pasta, {program}", expected=f"version {_text(NEEDED)} or later", got=got, hint=hint
    )


def version_of(said: str) -> tuple[int, int, int] | None:
    """The date that is its version: `pasta 2025_05_03.587980c`, `pasta 0.0~git20250503.587980c-2`; None for neither."""
    words = said.split("\n")[0].split()
    match = _DATE.search(words[1]) if len(words) > 1 and words[0] == "pasta" else None
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def ask_version(program: str) -> str:
    """What it says of its version. Raises EngineFault.

    On a terminal: some versions end without writing what they said to a pipe (conf.c, `--version`, _exit).
    """
    ours, theirs = os.openpty()
    try:
        try:
            subprocess.run(
                [program, "--version"],
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=subprocess.DEVNULL,
                env={"LC_ALL": "C"},
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineFault(f"network engine pasta, {program}", expected="it to run", got=str(error)) from error
        finally:
            os.close(theirs)
        return os.read(ours, 4096).decode(errors="replace").replace("\r", "")
    except OSError:  # EIO: nothing was written
        return ""
    finally:
        os.close(ours)


def _text(version: tuple[int, int, int]) -> str:
    return "{:04d}_{:02d}_{:02d}".format(*version)
