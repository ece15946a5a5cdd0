"""Programs in front of the real ones, which note each run but those that only ask for the version."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from support.tools import PATH, require


class Shims:
    """`path`: the PATH to run with; `runs()`: the names of the programs that worked, in order."""

    def __init__(self, directory: Path, *programs: str) -> None:
        require(*programs)
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "runs.log"
        self._log.touch()
        for program in programs:
            real = shutil.which(program, path=PATH)
            shim = directory / program
            shim.write_text(
                f'#!/bin/sh\ncase " $* " in *" --version "*) ;; *) echo {program} >>"{self._log}" ;; esac\n'
                f'exec "{real}" "$@"\n'
            )
            shim.chmod(0o755)
        self.path = f"{directory}{os.pathsep}{PATH}"

    def runs(self) -> list[str]:
        return self._log.read_text().split()

    def forget(self) -> None:
        """Count from here."""
        self._log.write_text("")
