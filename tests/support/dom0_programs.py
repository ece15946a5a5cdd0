"""Runs programs of tests/support in the lab's dom0, with the blobs of a bundle at hand as disks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.bundle.model import Bundle
from pipeline.jsonmodel import to_json
from runtime.host.lab.lab import Lab

SUPPORT = Path(__file__).parent
# A disk shows up in dom0 a moment after it was plugged in.
FIND = """
for i in 1 2 3 4 5 6 7 8 9 10; do
  for d in /sys/block/vd*; do [ "$(cat $d/serial)" = {serial} ] && echo /dev/${{d##*/}} && exit 0; done
  sleep 1
done; exit 1
"""


@contextmanager
def dom0_zone(lab: Lab, bundle: Bundle) -> Iterator[Any]:
    """Gives run(case, *words): the JSON lines dom0_zone.py reported. Raises AssertionError with all it said."""
    blobs = [bundle.kernel, *bundle.initrd, bundle.rootfs]
    devices = {}
    for blob in blobs:
        code, device = lab.shell(FIND.format(serial=lab.attach(blob)))
        assert code == 0, f"{blob.digest} did not show up"
        devices[str(blob.digest)] = device.strip()
    for name in ("dom0_zone.py", "dom0parts.py", "dom0faults.py", "doorfaults.py"):
        lab.shell(f"cat >/tmp/{name}", input=(SUPPORT / name).read_text())
    lab.shell("cat >/tmp/facts.json", input=json.dumps({"bundle": to_json(bundle), "devices": devices}))

    def run(*words: str, timeout_s: float = 600) -> list[dict[str, Any]]:
        code, said = lab.shell(f"cd /tmp && python3 dom0_zone.py facts.json {' '.join(words)}", timeout_s=timeout_s)
        assert code == 0, said
        lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        assert lines[-1]["left"] == [] and lines[-1]["loops"] == {}, said
        return lines

    try:
        yield run
    finally:
        for blob in blobs:
            lab.detach(str(blob.digest))
