"""hvc1 on real Xen: a guest that echoes, served by one process and, after its kill, by the next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import dom0_channel
from support.dom0disk import disk_in_dom0

pytestmark = pytest.mark.xen


@pytest.mark.parametrize(
    "case", ["echo", "killed", *(pytest.param(case, marks=pytest.mark.soak) for case in ("flood", "memory"))]
)
def test_the_agent_channels_bytes(host, lab, nginx, case):
    """A megabyte there and back; a kill amid bytes; a neighbour that floods its console; what a channel costs."""
    try:
        device = disk_in_dom0(lab, nginx.kernel)
        lab.shell("cat >/tmp/dom0_channel.py", input=Path(dom0_channel.__file__).read_text())
        command = f"cd /tmp && python3 dom0_channel.py {device} {nginx.kernel.size_bytes} {case}"
        code, said = lab.shell(command, timeout_s=600)
        assert code == 0, said
        last = json.loads(said.strip().splitlines()[-1])
        assert last["left"] == last["before"]
        print(said)
    finally:
        lab.detach(str(nginx.kernel.digest))
