"""QEMU's argument list for the lab: pure, printable, the same for a cold start and a restore.

All sockets and logs are named relative to the directory QEMU is started in, so that the list does not depend on where
that is (and no socket path is too long).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.host.lab.config import LabConfig

CHANNEL_PORTS = 4
QMP_SOCKET = "qmp.sock"
CONSOLE_SOCKET = "console.sock"
CONSOLE_LOG = "console.log"
NETDEV = "n0"
DOM0_ADDRESS = "10.0.2.15"
# QEMU's default would let its cache of translated code grow to 1 GiB: in six boots it was then flushed twice instead of
# six times, and they took QEMU 202 s of CPU instead of 204.
TCG_CACHE_MIB = 256
# Under TCG the richer models crash dom0 (an emulated IRET under SMAP faults) or Xen (MONITOR is offered, but faulty).
CPU = {"tcg": "qemu64", "kvm": "host"}


def channel_socket(index: int) -> str:
    """The file of a channel port's socket."""
    return f"zonewright.{index}.sock"


@dataclass(frozen=True)
class Images:
    """The files QEMU reads."""

    xen: Path
    kernel: Path
    initrd: Path
    root: Path
    code: Path


def plan_argv(
    program: str, config: LabConfig, images: Images, *, accel: str, name: str, incoming_fd: int | None = None
) -> list[str]:
    """The argument list.

    name:        marks the process, so that it can be found again.
    incoming_fd: a descriptor to read a snapshot from; None starts cold.
    """
    argv = [program, "-name", f"{name},debug-threads=on", *_machine(config, images, accel)]
    # QEMU parses what a zone's back ends hand it; it has no business to start programs or gain rights.
    argv += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    argv += [
        "-chardev",
        f"socket,id=console,path={CONSOLE_SOCKET},server=on,wait=off,logfile={CONSOLE_LOG},logappend=on",
    ]
    argv += ["-serial", "chardev:console", "-qmp", f"unix:{QMP_SOCKET},server=on,wait=off"]
    for slot, (identifier, path) in enumerate((("root", images.root), ("code", images.code)), start=2):
        argv += ["-drive", f"file={escape(path)},if=none,id={identifier},format=raw,readonly=on"]
        argv += ["-device", f"virtio-blk-pci,drive={identifier},serial={identifier},addr={slot:#x}"]
    argv += ["-device", "virtio-serial-pci,id=channel,addr=0x4"]
    for index in range(CHANNEL_PORTS):
        argv += ["-chardev", f"socket,id=z{index},path={channel_socket(index)},server=on,wait=off"]
        argv += ["-device", f"virtserialport,bus=channel.0,nr={index + 1},chardev=z{index},name=zonewright.{index}"]
    argv += ["-netdev", f"user,id={NETDEV}", "-device", f"virtio-net-pci,netdev={NETDEV},addr=0x5"]
    if incoming_fd is not None:
        argv += ["-incoming", f"fd:{incoming_fd}"]
    return argv


def plan_probe(program: str, config: LabConfig, images: Images) -> list[str]:
    """The argument list that only shows whether Xen and dom0's kernel run on KVM: no disks, serial on stdout."""
    return [program, "-name", "zonewright-kvm-probe", *_machine(config, images, "kvm"), "-serial", "stdio"]


def _machine(config: LabConfig, images: Images, accel: str) -> list[str]:
    # QEMU's memory is zero at the start: scrubbing it would only make this machine provide all of it. spec-ctrl=no was
    # tried: neither zoned's imports in dom0 (17 to 20 s either way) nor a zone's boot were faster for it.
    xen = "console=com1 com1=115200,8n1 loglvl=all guest_loglvl=all bootscrub=0 "
    xen += f"dom0_mem={config.dom0_memory_mib}M,max:{config.dom0_memory_mib}M"
    # No comma can stand in dom0's own command line: it separates modules here.
    dom0 = "console=hvc0 loglevel=4 mitigations=off panic=-1 cryptomgr.notests random.trust_cpu=on"
    thread = f",thread=multi,tb-size={TCG_CACHE_MIB}" if accel == "tcg" else ""
    argv = ["-M", "pc", "-accel", f"{accel}{thread}", "-cpu", CPU[accel]]
    argv += ["-m", str(config.memory_mib), "-smp", str(config.vcpus)]
    argv += ["-display", "none", "-nodefaults", "-no-user-config", "-no-reboot"]
    argv += ["-kernel", escape(images.xen), "-append", xen]
    # QEMU splits this option at every comma that is not doubled; a file name with blanks cannot be given at all.
    return [*argv, "-initrd", f"{escape(images.kernel)} {dom0},{escape(images.initrd)}"]


def escape(path: Path) -> str:
    """A path inside one of QEMU's comma-separated options."""
    return str(path).replace(",", ",,")


def identity(argv: Sequence[str], replacements: dict[str, str]) -> list[str]:
    """The list with what does not decide a snapshot's fitness replaced: file names by digests, the process mark."""
    words = list(argv[1:])
    for index, word in enumerate(words):
        for old, new in replacements.items():
            word = word.replace(old, new)
        words[index] = word
    return words
