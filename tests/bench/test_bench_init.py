"""The counting of instructions, on programs that are known to the instruction."""

from __future__ import annotations

import os
from pathlib import Path

import guest
import instructions
import pytest
from run import NotMeasured
from support.tinyprogram import EXIT, WRITE, elf, fill, loop


def program(path: Path, code: bytes) -> str:
    path.write_bytes(elf(code))
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("times", [10, 1000])
def test_counts_to_the_first_write_exactly_and_a_string_instruction_once(tmp_path: Path, times: int) -> None:
    path = program(tmp_path / "tiny", loop(times) + fill(500) + WRITE + loop(5000) + EXIT)
    found, by = instructions.count([path], begin="tiny", timeout_s=60)
    assert by in ("counter", "steps")
    # Whether the call that writes is the last one counted is the kernel's choice.
    assert found - (1 + 2 * times + 3 + 4) in (0, 1)


def test_counts_what_the_tree_does_from_one_exec_to_another(tmp_path: Path) -> None:
    """A shell that is not counted becomes one that is, whose child is counted, too."""
    first = program(tmp_path / "first", loop(200) + EXIT)
    last = program(tmp_path / "last", loop(50_000_000) + EXIT)
    shell = tmp_path / "counted"
    shell.write_bytes(Path(os.path.realpath("/bin/sh")).read_bytes())
    shell.chmod(0o755)
    alone, _ = instructions.count([str(shell), "-c", f"exec {last}"], begin="counted", end="last", timeout_s=120)
    both, _ = instructions.count(
        ["sh", "-c", f"exec {shell} -c '{first}; exec {last}'"], begin="counted", end="last", timeout_s=120
    )
    # 405 of the program's own, and what the shell needs for a fork.
    assert both >= alone + 405
    assert both < 50_000_000, "the last program does not count"


def test_program_that_ends_too_early_is_no_measure(tmp_path: Path) -> None:
    path = program(tmp_path / "tiny", loop(3) + EXIT)
    with pytest.raises(NotMeasured, match="ended before what was waited for"):
        instructions.count([path], begin="tiny", timeout_s=60)


def test_a_guests_instructions_are_those_between_two_lines_of_its_kernel() -> None:
    said = """[    0.669018] Run /bin/zone as init process
zone: the first line
[    1.000820] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100
"""
    assert guest.between(said) == 331_802_000
    for lacking in ("zone: the first line", "Run /bin/zone", "Kernel panic"):
        with pytest.raises(NotMeasured):
            guest.between(said.replace(lacking, ""))
