"""The counting of instructions: in a program that is known to the instruction, and by the kernel's own lines."""

from __future__ import annotations

from pathlib import Path

import guest
import pytest
from run import NotMeasured
from support import zoneparts
from support.tinyprogram import EXIT, elf, loop

from pipeline import newc
from pipeline.fetch.model import FetchResult
from pipeline.layers import Spools
from pipeline.unpack import UnpackParams, open_rootfs
from pipeline.unpack import run as unpack

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a zone's kernel."""
    env, image = zoneparts.env(), zoneparts.zone_kernel().image
    fetched = FetchResult("recipe:debian-cloud", image.manifest, image.config, image.layers, image.diff_ids)
    path = tmp_path_factory.mktemp("kernel") / "kernel"
    with Spools(env.store) as spools:
        path.write_bytes(open_rootfs(env.store, unpack(UnpackParams(fetched), env), spools).read("kernel/image"))
    return path


@pytest.mark.parametrize("times", [10, 100_000])
def test_instructions_of_a_first_program_are_counted_to_its_mark(kernel: Path, tmp_path: Path, times: int) -> None:
    initrd = tmp_path / "initrd"
    program = newc.file("init", elf(loop(times) + guest.MARK + loop(5000) + EXIT), mode=0o755)
    initrd.write_bytes(newc.archive([program]))
    words = ["-kernel", str(kernel), "-initrd", str(initrd), "-append", guest.CMDLINE]
    counts = guest.run(["qemu-system-x86_64", *guest.MACHINE, "-serial", "stdio", *words], tmp_path)
    user, in_kernel = counts.marked
    # Whether the mark itself is counted when it is told of is QEMU's choice.
    assert user - (1 + 2 * times) in (0, 1)
    assert counts.at_end[0] - user >= 2 * 5000 and in_kernel < counts.at_end[1]
    assert "Attempted to kill init" in counts.console


def test_guest_without_a_mark_is_no_measure() -> None:
    with pytest.raises(NotMeasured, match="did not come to its workload: 'it hangs'"):
        _ = guest.Counts(None, (1, 2), "it hangs").marked


def test_a_guests_instructions_are_those_between_two_lines_of_its_kernel() -> None:
    said = """[    0.669018] Run /bin/zone as init process
[    1.000820] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100
"""
    assert guest.between(said) == 331_802_000
    for lacking in ("Run /bin/zone", "Kernel panic"):
        with pytest.raises(NotMeasured):
            guest.between(said.replace(lacking, ""))
