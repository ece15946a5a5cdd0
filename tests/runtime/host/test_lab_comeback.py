"""Zones that come back with the lab get their disks and their forwards; one that cannot harms no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fakezoned import FakeZoned
from support.said import Said

from pipeline.errors import StoreDamaged
from pipeline.oci import Descriptor
from runtime.host.client.endpoint import endpoint_of
from runtime.host.lab.comeback import bring_back

GOOD, LOST = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


class OneLab:
    """A lab whose store lacks one blob; zones run once they have their disks."""

    def __init__(self, zoned: FakeZoned) -> None:
        self._zoned = zoned
        self.plugged: list[str] = []
        self.forwards: list[tuple[str, int, int, str]] = []

    def endpoint(self) -> Any:
        return endpoint_of(self._zoned.address)

    def attach(self, blob: Descriptor) -> str:
        if str(blob.digest) == LOST:
            raise StoreDamaged("store object", got="none")
        self.plugged.append(str(blob.digest))
        return ""

    def forward(self, address: str, port: int, dom0_port: int, protocol: str) -> None:
        self.forwards.append((address, port, dom0_port, protocol))


@pytest.fixture
def zoned(tmp_path: Path) -> Iterator[FakeZoned]:
    with FakeZoned(tmp_path / "s") as fake:
        yield fake


def test_disks_are_plugged_in_and_ports_lead_here_again(zoned: FakeZoned) -> None:
    zoned.add("poor", blobs=[LOST])
    web = zoned.add("web", ports=((8080, 80), (8080, 53)), blobs=[GOOD])
    zoned.add("over", state="exited", blobs=[LOST])
    web.ports[0].port, web.ports[1].port, web.ports[1].protocol = 40001, 40002, "udp"
    lab, progress = OneLab(zoned), Said()
    bring_back(lab, progress)  # type: ignore[arg-type]
    assert lab.plugged == [GOOD]
    assert lab.forwards == [("127.0.0.1", 8080, 40001, "tcp"), ("127.0.0.1", 8080, 40002, "udp")]
    assert progress.lines == ["zone poor does not come back: store object: none"]
