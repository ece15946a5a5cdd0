"""Further containers of which the root cannot be made."""

import os
from pathlib import Path

import pytest
from support import zonebox, zoneparts
from support.agenthost import AgentError
from support.zonebox import IDLE

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts"),
]


def test_a_container_whose_root_cannot_be_made_leaves_nothing_and_its_name_is_free(start, image, tmp_path):
    root = zoneparts.small_root(tmp_path / "odd", ("sh",))
    (root / "etc").rmdir()
    (root / "etc").write_text("a file\n")
    zone = start(IDLE)
    host, inside = zone.host, Path(f"/proc/{zone.init_pid}")
    with (
        zonebox.loop_device(zoneparts.squashfs(root, tmp_path / "odd.sqfs")) as odd,
        zonebox.loop_device(image) as good,
    ):
        for device, words in ((odd, "opening /etc of the image: Not a directory"), ("/dev/null", "Block device")):
            spec = {"root": {"device": device.removeprefix("/dev/")}, "process": IDLE}
            with pytest.raises(AgentError, match=words):
                host.call("create", id="two", spec=spec)
            assert "/containers/two" not in (inside / "mounts").read_text()
            assert os.listdir(inside / "root" / "containers") == ["main"]
        host.call("create", id="two", spec=spec | {"root": {"device": good.removeprefix("/dev/")}})
        host.call("delete", id="two")
        host.call("shutdown", mode="now")
        zone.wait()
