"""Workloads with directories of dom0, by a plain gRPC client: 9p devices come into a zone that runs, and go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from support.labcontrol import control_of, import_shell
from support.labzones import kill_zoned
from support.zonecommand import ZoneCommand

from runtime.host.api import common_pb2 as common
from runtime.host.api import control_pb2 as pb
from runtime.host.lab.lab import Lab

pytestmark = [pytest.mark.xen, pytest.mark.slow]

OWN, FIRST, SECOND = "/srv/mounts/own", "/srv/mounts/first", "/srv/mounts/second"
OPTIONS = ("-m", "192m", "--kernel", "recipe:debian", "-v", f"{OWN}:/own:dir")
ROOT = common.IdOrNameValue(name="root")


def dom0(lab: Lab, command: str) -> str:
    code, said = lab.shell(command, timeout_s=120)
    assert code == 0, (command, said)
    return said


def serving(lab: Lab) -> int:
    """How many processes serve directories."""
    look = "for p in /proc/[0-9]*; do grep -qs runtime.share.main $p/cmdline && cat $p/stat; done || true"
    return sum(" (python3) " in line for line in dom0(lab, look).splitlines())


@pytest.fixture(scope="module")
def control(lab: Lab) -> Iterator[Any]:
    with control_of(lab) as stub:
        yield stub


@pytest.fixture(scope="module")
def image(control: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    return import_shell(control, tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def shared(zone: ZoneCommand, lab: Lab, control: Any) -> Iterator[str]:
    """The id of a zone with a directory of its own, whose kernel so has the modules."""
    places = (OWN, FIRST, SECOND)
    dom0(lab, f"mkdir -p {' '.join(places)} && for d in {' '.join(places)}; do echo $d >$d/name; done")
    assert zone("run", "-d", "--name", "mounts", *OPTIONS, "recipe:nginx", "sleep", "1000") == "mounts\n"
    yield control.ResolveZoneId(pb.ResolveZoneIdRequest(name="mounts")).zone_id
    zone.remove_zones()
    assert serving(lab) == 0
    dom0(lab, "rm -r /srv/mounts")


class Made:
    """A workload that waits, with a directory on /data."""

    def __init__(self, control: Any, zone_id: str, image: str, path: str, name: str) -> None:
        self.control, self.zone_id = control, zone_id
        spec = common.WorkloadSpec(
            name=name,
            zone_id=zone_id,
            image=common.OciImageSpec(digest=image, format=common.OCI_IMAGE_FORMAT_SQUASHFS),
            process=common.ProcessSpec(command=["/bin/sh", "-c", "read line"], stdin=True, user=ROOT),
            mounts=[common.MountSpec(host_path=path, target_path="/data")],
        )
        self.id = control.CreateWorkload(pb.CreateWorkloadRequest(spec=spec), timeout=300).workload_id
        control.StartWorkload(pb.StartWorkloadRequest(workload_id=self.id), timeout=300)

    def mount(self) -> common.WorkloadMountInfo:
        request = pb.GetWorkloadRequest(workload_id=self.id)
        (found,) = self.control.GetWorkload(request, timeout=60).workload.status.mount_status.mounts
        return found

    def said(self, script: str) -> str:
        process = common.ProcessSpec(command=["/bin/sh", "-c", script], user=ROOT)
        start = pb.ExecuteZoneCommandStart(zone_id=self.zone_id, workload_id=self.id, process=process)
        request = iter([pb.ExecuteZoneCommandRequest(start=start)])
        *output, last = self.control.ExecuteZoneCommand(request, timeout=300, wait_for_ready=True)
        assert last.exited.exit_code == 0, output
        return b"".join(reply.output.stdout for reply in output).decode()

    def destroy(self) -> None:
        request = pb.DestroyWorkloadRequest(workload_id=self.id)
        self.control.DestroyWorkload(request, timeout=300, wait_for_ready=True)


READ = "read line </data/name; echo $line"


def test_each_workload_has_its_own_directory_and_no_other(
    zone: ZoneCommand, lab: Lab, control: Any, shared: str, image: str
) -> None:
    places = {"first": FIRST, "second": SECOND}
    first, second = (Made(control, shared, image, path, name) for name, path in places.items())
    assert (first.said(READ), second.said(READ)) == (f"{FIRST}\n", f"{SECOND}\n")
    assert [made.mount().tag for made in (first, second)] == ["share1", "share2"]
    assert first.mount() == common.WorkloadMountInfo(tag="share1", host_path=FIRST, target_path="/data")
    found = control.GetZone(pb.GetZoneRequest(zone_id=shared)).zone.status.device_status.mount
    assert found == common.ZoneMountStatus(host_path=OWN, tag="share0")
    first.said("echo from the workload >/data/made")
    assert dom0(lab, f"cat {FIRST}/made; stat -c %u {FIRST}/made; ls {SECOND}") == "from the workload\n0\nname\n"
    dom0(lab, f"echo from dom0 >{SECOND}/name")
    assert second.said(READ) == "from dom0\n"
    assert zone("exec", "mounts", "cat", "/own/name") == f"{OWN}\n"
    assert serving(lab) == 3
    assert zone.json("system", "check")["findings"] == []
    first.destroy()
    assert second.said(READ) == "from dom0\n"
    second.destroy()
    assert serving(lab) == 1
    assert zone.json("system", "check")["findings"] == []


@pytest.mark.soak
def test_directories_come_and_go_again_and_again(
    zone: ZoneCommand, lab: Lab, control: Any, shared: str, image: str
) -> None:
    for round in range(4):
        made = Made(control, shared, image, FIRST, "again")
        made.said(f"echo {round} >/data/round")
        assert dom0(lab, f"cat {FIRST}/round") == f"{round}\n"
        made.destroy()
    assert serving(lab) == 1
    assert zone("exec", "mounts", "cat", "/own/name") == f"{OWN}\n"


@pytest.mark.soak
def test_directory_of_a_workload_outlives_zoned(
    zone: ZoneCommand, lab: Lab, control: Any, shared: str, image: str
) -> None:
    made = Made(control, shared, image, FIRST, "stays")
    tag = made.mount().tag
    kill_zoned(lab)
    zone("wait", "--until", "ready", "mounts")
    made.said("echo after >/data/after")
    assert dom0(lab, f"cat {FIRST}/after") == "after\n"
    assert made.mount().tag == tag and serving(lab) == 2
    assert zone.json("system", "check")["findings"] == []
    made.destroy()
    assert serving(lab) == 1
    assert zone.json("system", "check")["findings"] == []


@pytest.mark.parametrize("path", ["/run/zonewright", "/", "/proc/self", "/srv/mounts/none"])
def test_directory_that_no_zone_may_have_is_refused(control: Any, shared: str, image: str, path: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        Made(control, shared, image, path, "refused")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert f"workload refused, directory {path}:/data" in refused.value.details()
    workloads = control.ListWorkloads(pb.ListWorkloadsRequest(), timeout=60)
    assert not [workload for reply in workloads for workload in reply.workloads]
