"""The domain builder against `xl create`: the same lab, kernel ELF and initrd, taken in turn."""

from __future__ import annotations

import json
import statistics

from run import Measure

from pipeline.bundle import manifest
from pipeline.oci import Descriptor
from pipeline.progress import for_terminal
from pipeline.store import Store
from runtime.host.lab.config import load_config
from runtime.host.lab.lab import Lab
from runtime.host.lab.reach import state_directory

FLAVOUR = "debian12-bench"
ROUNDS = 7
MEMORY_MIB = 128
UUID = "5a6f6e65-7772-6967-6874-{:012x}"
COPY = """
for i in 1 2 3 4 5 6 7 8 9 10; do
  for d in /sys/block/vd*; do
    [ "$(cat $d/serial)" = {serial} ] && head -c {size} /dev/${{d##*/}} >/tmp/{name} && exit 0
  done
  sleep 1
done; exit 1
"""
XL_CONFIG = """
name = "peer"
type = "pv"
kernel = "/tmp/kernel"
ramdisk = "/tmp/initrd"
memory = {memory}
vcpus = 1
extra = "console=hvc0 quiet"
on_poweroff = "destroy"
on_reboot = "destroy"
on_crash = "destroy"
"""
# xl wants what Debian's xen service would have made ready.
XL_READY = """
mkdir -p /var/log/xen /var/lib/xen /var/lib/xen/dump /run/xen /run/lock
LIB=$(ls -d /usr/lib/xen-*/lib/x86_64-linux-gnu 2>/dev/null | tail -n 1)
export LD_LIBRARY_PATH=$LIB
$(ls /usr/lib/xen-*/bin/xen-init-dom0 | tail -n 1) &&
$(ls /usr/lib/xen-*/bin/xenconsoled | tail -n 1) --pid-file=/run/xenconsoled.pid && xl list
"""
TIMED = """
import json, subprocess, sys, time
start = time.monotonic()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
print(json.dumps([time.monotonic() - start, done.returncode, (done.stderr + done.stdout)[-800:]]))
"""


def compare() -> list[Measure]:
    """Ours in zoned's place (imports done), ours as a whole process, and xl, medians of rounds taken in turn."""
    store = Store()
    lab = Lab(load_config(flavour=FLAVOUR), store, directory=state_directory("bench"))
    lab.down()
    progress = for_terminal()
    try:
        lab.up(progress)
        _, bundle = manifest.find(store, "nginx")
        copy(lab, bundle.kernel, "kernel")
        copy(lab, bundle.initrd[0], "initrd")
        write(lab, "/tmp/peer.cfg", XL_CONFIG.format(memory=MEMORY_MIB))
        write(lab, "/tmp/timed.py", TIMED)
        shell(lab, XL_READY)
        resident, whole, peer = [], [], []
        for number in range(ROUNDS):
            peer.append(timed(lab, "xl create /tmp/peer.cfg")[0])
            shell(lab, "xl destroy peer")
            spec = {
                "name": "ours",
                "uuid": UUID.format(number),
                "memory_mib": MEMORY_MIB,
                "cmdline": "console=hvc0 quiet",
                "kernel": {"path": "/tmp/kernel", "size_bytes": bundle.kernel.size_bytes},
                "ramdisk": [{"path": "/tmp/initrd", "size_bytes": bundle.initrd[0].size_bytes}],
            }
            write(lab, "/tmp/spec.json", json.dumps(spec))
            elapsed, said = timed(lab, "python3 -m runtime.boot --times --console /tmp/ours.log /tmp/spec.json")
            whole.append(elapsed)
            resident.append(json.loads(said.strip().splitlines()[-1])["build and unpause"] / 1000)
    finally:
        lab.down()
        progress.close()
    ratios = [ours / theirs for ours, theirs in zip(resident, peer, strict=True)]
    return [
        Measure("build_unpause_ratio", round(statistics.median(ratios), 2), "ratio"),
        Measure("build_unpause", round(statistics.median(resident), 3), "s"),
        Measure("xl_create", round(statistics.median(peer), 3), "s"),
        Measure("build_whole_process", round(statistics.median(whole), 3), "s"),
    ]


def shell(lab: Lab, command: str, *, timeout_s: float = 120) -> str:
    """Run a command in dom0; the bench ends where it fails."""
    code, said = lab.shell(f"cd /opt/zonewright; {command}", timeout_s=timeout_s)
    if code:
        raise SystemExit(f"bench: in dom0: {command.strip()[:200]}: {said}")
    return said


def timed(lab: Lab, command: str) -> tuple[float, str]:
    """Seconds a command takes in dom0, measured there, and what it said."""
    elapsed, code, said = json.loads(shell(lab, f"python3 /tmp/timed.py {command}").strip().splitlines()[-1])
    if code:
        raise SystemExit(f"bench: in dom0: {command}: {said}")
    return float(elapsed), str(said)


def copy(lab: Lab, blob: Descriptor, name: str) -> None:
    """A blob as a file in dom0's memory, for xl reads files only."""
    shell(lab, COPY.format(serial=lab.attach(blob), size=blob.size_bytes, name=name))


def write(lab: Lab, path: str, text: str) -> None:
    """A small file in dom0."""
    lab.shell(f"cat >{path}", input=text)
