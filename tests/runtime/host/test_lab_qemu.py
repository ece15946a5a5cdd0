"""QEMU's argument list, against the golden file beside this test."""

from __future__ import annotations

from pathlib import Path

from runtime.host.lab.config import LabConfig
from runtime.host.lab.qemu import Images, identity, plan_argv, plan_probe

GOLDEN = Path(__file__).parent / "golden" / "lab_argv.txt"
IMAGES = Images(*(Path(f"/store/{name}") for name in ("xen", "kernel", "initrd", "root", "code")))


def argv(config: LabConfig | None = None, *, accel: str = "tcg", images: Images = IMAGES) -> list[str]:
    return plan_argv("qemu-system-x86_64", config or LabConfig(), images, accel=accel, name="mark")


def test_argument_list_of_the_default_lab() -> None:
    assert "\n".join(argv()) + "\n" == GOLDEN.read_text()


def test_settings_reach_qemu_and_xen() -> None:
    line = " ".join(argv(LabConfig(memory_mib=2048, dom0_memory_mib=512, vcpus=4)))
    assert "-m 2048 -smp 4" in line
    assert "dom0_mem=512M,max:512M" in line


def test_the_command_line_of_dom0_has_no_comma_as_it_separates_modules() -> None:
    words = argv()
    module, _, rest = words[words.index("-initrd") + 1].partition(",")
    assert module.startswith("/store/kernel console=hvc0 ")
    assert rest == "/store/initrd"


def test_commas_in_paths_are_doubled() -> None:
    images = Images(*(Path(f"/a,b/{name}") for name in ("xen", "kernel", "initrd", "root", "code")))
    line = " ".join(argv(images=images))
    assert "file=/a,,b/root,if=none" in line
    assert ",/a,,b/initrd" in line


def test_nothing_of_the_list_depends_on_where_the_lab_keeps_its_files() -> None:
    replaced = identity(argv(), {f"/store/{name}": name for name in ("xen", "kernel", "initrd", "root", "code")})
    assert not [word for word in replaced if "/" in word]


def test_the_probe_has_neither_disks_nor_monitor() -> None:
    words = plan_probe("qemu-system-x86_64", LabConfig(), IMAGES)
    assert "kvm" in words
    assert not {"-drive", "-qmp", "-device"} & set(words)
