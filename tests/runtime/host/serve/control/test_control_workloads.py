"""ControlService by a plain gRPC client: images and workloads."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json
import sys
import tarfile
import types
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.controlserver import ControlServer
from support.registry import FakeRegistry, Fault
from support.tars import image_of, tar_of, write_layout
from test_control_zones import create, platform_in, refusal, watch

from pipeline.bundle.model import Volume
from pipeline.seccomp import filters, profile
from runtime.host.api import common_pb2 as common
from runtime.host.api import control_pb2 as pb
from runtime.host.daemon import confinement

SQUASHFS, TAR = common.OCI_IMAGE_FORMAT_SQUASHFS, common.OCI_IMAGE_FORMAT_TAR
PASSWD = b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n"
CONFIG = {"Entrypoint": ["/bin/web"], "Cmd": ["-f"], "Env": ["A=1"], "User": "web", "WorkingDir": "/srv"}


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with closing(FakeRegistry()) as found:
        yield found


def an_image() -> Any:
    tree = tar_of({"etc/": None, "etc/passwd": PASSWD, "bin/": None, "bin/web": b"\x7fELF", "big": bytes(100_000)})
    return image_of(tree, config={"config": CONFIG})


def pulled(control: ControlServer, registry: FakeRegistry, **fields: Any) -> list[pb.PullImageReply]:
    reference = registry.add("app", "v1", an_image()).removeprefix("docker://")
    return list(control.stub.PullImage(pb.PullImageRequest(image=reference, **fields), timeout=120))


def listed(control: ControlServer) -> list[common.OciImageInfo]:
    return [image for reply in control.stub.ListImages(pb.ListImagesRequest()) for image in reply.images]


# -- images ------------------------------------------------------------------------------------------------------------


def test_a_pull_tells_its_progress_then_the_image(control: ControlServer, registry: FakeRegistry) -> None:
    image = an_image()
    *progress, last = pulled(control, registry, want_metadata=True)
    assert last.spec == common.OciImageSpec(digest=image.digest, format=SQUASHFS)
    assert last.metadata.manifest == image.manifest
    assert json.loads(last.metadata.config)["config"] == CONFIG
    phases = [reply.progress.phase for reply in progress]
    assert phases == sorted(phases)
    assert phases[-1] == common.OCI_IMAGE_PROGRESS_PHASE_COMPLETE
    (layer,) = progress[-1].progress.layers
    assert layer.phase == common.OCI_IMAGE_PROGRESS_LAYER_PHASE_EXTRACTED
    assert layer.indication.completed.total == json.loads(image.manifest)["layers"][0]["size"]
    (info,) = listed(control)
    assert (info.digest, info.format, list(info.names)) == (image.digest, SQUASHFS, [f"{registry.host}/app:v1"])
    assert info.metadata.manifest == image.manifest


@pytest.mark.parametrize("method", ["username_password", "raw_basic_auth"])
def test_a_pull_shows_the_callers_credentials(control: ControlServer, registry: FakeRegistry, method: str) -> None:
    registry.basic = "me:secret"
    reference = registry.add("app", "v1", an_image())
    code, text = refusal(control.stub.PullImage, pb.PullImageRequest(image=reference))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "401" in text
    auth = common.OciRegistryAuthentication()
    if method == "raw_basic_auth":
        auth.raw_basic_auth = base64.b64encode(b"me:secret").decode()
    else:
        auth.username_password.username, auth.username_password.password = "me", "secret"
    assert pulled(control, registry, auth=auth)[-1].spec.digest
    broken = common.OciRegistryAuthentication(raw_basic_auth="c2VjcmV0")
    code, text = refusal(control.stub.PullImage, pb.PullImageRequest(image=reference, auth=broken))
    assert (code, "c2VjcmV0" in text) == (grpc.StatusCode.INVALID_ARGUMENT, False)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"image": ""}, "INVALID_ARGUMENT"),
        ({"image": "oci:/etc"}, "INVALID_ARGUMENT"),
        ({"image": "A B"}, "INVALID_ARGUMENT"),
        ({"image": "app", "format": 4}, "UNIMPLEMENTED"),
        ({"image": "app", "format": 9}, "INVALID_ARGUMENT"),
    ],
)
def test_what_cannot_be_pulled_is_refused(control: ControlServer, fields: Any, code: str) -> None:
    assert refusal(control.stub.PullImage, pb.PullImageRequest(**fields))[0].name == code


def test_an_image_that_is_not_there_is_not_found(control: ControlServer, registry: FakeRegistry) -> None:
    missing = pb.PullImageRequest(image=f"{registry.host}/none:v1")
    assert refusal(control.stub.PullImage, missing)[0] is grpc.StatusCode.NOT_FOUND


def test_a_caller_that_leaves_ends_its_pull(control: ControlServer, registry: FakeRegistry) -> None:
    reference = registry.add("app", "v1", an_image())
    registry.faults.append(Fault("/blobs/", delay_s=3600, times=9))
    stream = control.stub.PullImage(pb.PullImageRequest(image=reference), timeout=120)
    for reply in stream:
        if reply.progress.phase == common.OCI_IMAGE_PROGRESS_PHASE_RESOLVING:
            break
    (runner,) = control.call(control.context.tasks.runners)
    stream.cancel()
    control.run(asyncio.wait([runner]))
    assert runner.cancelled()


def archive(directory: Path, image: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(write_layout(directory / "layout", {"t": image}), ".")
    return out.getvalue()


def import_requests(data: bytes, **fields: Any) -> Iterator[pb.ImportImageRequest]:
    yield pb.ImportImageRequest(**fields)
    for at in range(0, len(data), 10_000):
        yield pb.ImportImageRequest(chunk=data[at : at + 10_000], last_chunk=at + 10_000 >= len(data))


def test_an_import_comes_in_chunks_once(control: ControlServer, tmp_path: Path) -> None:
    image = an_image()
    data = archive(tmp_path, image)
    fields = {"digest": image.digest, "image": "example.org/app:v1", "format": TAR}
    first, *progress, last = control.stub.ImportImage(import_requests(data, **fields), timeout=120)
    assert first.accepted and not first.HasField("spec")
    assert progress[-1].progress.phase == common.OCI_IMAGE_PROGRESS_PHASE_COMPLETE
    assert last.spec == common.OciImageSpec(digest=image.digest, format=TAR)
    assert [list(info.names) for info in listed(control)] == [["example.org/app:v1"]]
    (again,) = control.stub.ImportImage(iter([pb.ImportImageRequest(**fields)]), timeout=120)
    assert not again.accepted
    assert again.spec == last.spec


def test_an_import_that_stops_or_lies_is_refused(control: ControlServer, tmp_path: Path) -> None:
    image = an_image()
    data = archive(tmp_path, image)
    cut = list(import_requests(data, image="example.org/app:v1"))[:-1]
    assert refusal(control.stub.ImportImage, iter(cut))[0] is grpc.StatusCode.INVALID_ARGUMENT
    other = "sha256:" + "0" * 64
    assert refusal(control.stub.ImportImage, import_requests(data, digest=other))[0] is grpc.StatusCode.NOT_FOUND
    code, _ = refusal(control.stub.ImportImage, import_requests(b"\1" * 5000))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert listed(control) == []


def test_a_removed_image_is_gone(control: ControlServer, registry: FakeRegistry) -> None:
    digest = pulled(control, registry)[-1].spec.digest
    remove = control.stub.RemoveImage
    assert not remove(pb.RemoveImageRequest(digest=digest, format=TAR)).removed
    assert remove(pb.RemoveImageRequest(digest=digest, format=SQUASHFS)).removed
    assert listed(control) == []
    assert refusal(remove, pb.RemoveImageRequest(digest="v1"))[0] is grpc.StatusCode.INVALID_ARGUMENT


# -- workloads ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def zone(control: ControlServer) -> str:
    control.platform.save(platform_in(control.store))
    return create(control, name="one")


def workload(control: ControlServer, image: str, zone_id: str, **fields: Any) -> str:
    spec = common.WorkloadSpec(zone_id=zone_id, image=common.OciImageSpec(digest=image), **fields)
    return str(control.stub.CreateWorkload(pb.CreateWorkloadRequest(spec=spec)).workload_id)


def container(control: ControlServer) -> dict[str, Any]:
    """The container that was made last, as the zone's runtime takes it."""
    made = dict(list(control.manager.workloads.values())[-1].request.container)
    sys.modules.setdefault("zsys", types.ModuleType("zsys"))  # the zone's program has it built in
    from runtime.init.container.spec import check

    check(
        {key: value for key, value in made.items() if key not in ("stdin_open", "healthcheck")}
        | {"root": made["root"] | {"device": "xvdc"}}
    )
    return made


def test_a_workload_lives_in_its_zone(control: ControlServer, registry: FakeRegistry, zone: str) -> None:
    stub, image = control.stub, pulled(control, registry)[-1].spec.digest
    events = watch(control)
    workload_id = workload(control, image, "one", name="web")
    found = stub.GetWorkload(pb.GetWorkloadRequest(workload_id=workload_id)).workload
    assert (found.spec.zone_id, found.spec.name, found.status.state) == (zone, "web", common.WORKLOAD_STATE_CREATED)
    (device,) = found.status.block_device_status.devices
    assert (device.block_index, device.device_id) == (2, 51744)
    assert next(events).workload_changed.workload == found
    stub.StartWorkload(pb.StartWorkloadRequest(workload_id=workload_id))
    assert next(events).workload_changed.workload.status.state == common.WORKLOAD_STATE_RUNNING
    stub.StopWorkload(pb.StopWorkloadRequest(workload_id=workload_id, timeout=3))
    stopped = next(events).workload_changed.workload.status
    assert (stopped.state, stopped.exit_status.code) == (common.WORKLOAD_STATE_COMPLETED, 143)
    assert [found for reply in stub.ListWorkloads(pb.ListWorkloadsRequest()) for found in reply.workloads]
    stub.DestroyWorkload(pb.DestroyWorkloadRequest(workload_id="web"))
    assert next(events).workload_changed.workload.status.state == common.WORKLOAD_STATE_DESTROYED
    assert refusal(stub.GetWorkload, pb.GetWorkloadRequest(workload_id="web"))[0] is grpc.StatusCode.NOT_FOUND
    events.cancel()


def test_the_container_is_the_images_and_the_specs(control: ControlServer, registry: FakeRegistry, zone: str) -> None:
    image = pulled(control, registry)[-1].spec.digest
    workload(control, image, zone, name="plain")
    plain = container(control)
    process = plain["process"]
    assert process["argv"] == ["/bin/web", "-f"]
    assert (process["uid"], process["gid"], process["cwd"]) == (33, 34, "/srv")
    assert "A=1" in process["env"] and "HOME=/srv" in process["env"]
    assert process["capabilities"]["bounding"] == process["capabilities"]["permitted"]
    assert plain["hostname"] == "plain"
    assert plain["stdin_open"] is False
    assert process["seccomp"] == confinement.default_filter()
    workload(
        control,
        image,
        zone,
        process=common.ProcessSpec(
            command=["/bin/sh"],
            environment=[common.EnvironmentVariableSpec(key="A", value="2")],
            working_directory="/",
            tty=True,
            terminal_size=common.TerminalSize(rows=30, columns=100),
            user=common.IdOrNameValue(name="root"),
            group=common.IdOrNameValue(id=7),
        ),
        security=common.WorkloadSecuritySpec(
            raise_capabilities=["CAP_NET_ADMIN"],
            raise_ambient_capabilities=["net_bind_service"],
            drop_capabilities=["ALL"],
            read_only_rootfs=True,
            disable_namespaces=[common.PROCESS_NAMESPACE_UTS],
            strict_user_namespace=True,
        ),
        scratch_mount=[common.WorkloadScratchMount(path="/tmp")],
        cgroup_limits=[common.CgroupLimit(limit_name="memory.max", value="1000000")],
    )
    full = container(control)
    process = full["process"]
    assert process["seccomp"] == confinement.default_filter(["NET_ADMIN", "NET_BIND_SERVICE"])
    assert process["argv"] == ["/bin/sh"]
    assert (process["uid"], process["gid"], process["tty"], process["size"]) == (0, 7, True, [30, 100])
    assert "A=2" in process["env"]
    assert process["capabilities"] == {
        "bounding": ["NET_ADMIN", "NET_BIND_SERVICE"],
        "effective": ["NET_ADMIN", "NET_BIND_SERVICE"],
        "permitted": ["NET_ADMIN", "NET_BIND_SERVICE"],
        "inheritable": ["NET_BIND_SERVICE"],
        "ambient": ["NET_BIND_SERVICE"],
    }
    assert full["root"] == {"readonly": True}
    assert full["namespaces"]["uts"] == "zone" and full["namespaces"]["pid"] == "own"
    assert full["namespaces"]["user"]["uid_maps"] == [[0, 65536, 65536]]
    assert "hostname" not in full
    assert full["limits"] == {"unified": {"memory.max": "1000000"}}
    assert [mount["destination"] for mount in full["mounts"]] == ["/tmp"]


def test_a_workload_has_directories_of_the_host(control: ControlServer, registry: FakeRegistry, zone: str) -> None:
    image = pulled(control, registry)[-1].spec.digest
    asked = [
        common.MountSpec(host_path="/srv//data/", target_path="/data/"),
        common.MountSpec(host_path="/a", target_path="/b"),
    ]
    workload_id = workload(control, image, zone, name="web", mounts=asked)
    made = control.manager.workloads[workload_id]
    wanted = (Volume("/data", "directory", "/srv/data"), Volume("/b", "directory", "/a"))
    assert made.request.mounts == wanted
    assert container(control)["mounts"] == [], "their tags are not known yet"

    def found() -> common.Workload:
        return control.stub.GetWorkload(pb.GetWorkloadRequest(workload_id=workload_id)).workload

    assert list(found().spec.mounts) == asked and not found().status.HasField("mount_status")
    control.manager.workloads[workload_id] = dataclasses.replace(made, tags=("share1", "share2"))
    assert list(found().status.mount_status.mounts) == [
        common.WorkloadMountInfo(tag="share1", host_path="/srv/data", target_path="/data"),
        common.WorkloadMountInfo(tag="share2", host_path="/a", target_path="/b"),
    ]


def test_a_workload_has_its_images_health_check(control: ControlServer, registry: FakeRegistry, zone: str) -> None:
    check = {"Test": ["CMD-SHELL", "test -e /well"], "Interval": 2_000_000_000}
    image = image_of(tar_of({"etc/": None, "etc/passwd": PASSWD}), config={"config": CONFIG | {"Healthcheck": check}})
    reference = registry.add("well", "v1", image).removeprefix("docker://")
    *_, last = control.stub.PullImage(pb.PullImageRequest(image=reference), timeout=120)
    workload(control, last.spec.digest, zone)
    made = container(control)["healthcheck"]
    assert (made["argv"], made["interval_s"], made["retries"]) == (["/bin/sh", "-c", "test -e /well"], 2.0, 3)


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"raise_capabilities": ["ALL"]}, set()),
        ({"raise_capabilities": ["all"], "drop_capabilities": ["CAP_SYS_ADMIN", "BPF"]}, {"SYS_ADMIN", "BPF"}),
        ({"raise_ambient_capabilities": ["ALL"], "drop_capabilities": ["BPF"]}, {"BPF"}),
    ],
)
def test_a_filter_is_made_for_the_capabilities_a_workload_ends_up_with(
    control: ControlServer, registry: FakeRegistry, zone: str, fields: Any, missing: set[str]
) -> None:
    image = pulled(control, registry)[-1].spec.digest
    workload(control, image, zone, security=common.WorkloadSecuritySpec(**fields))
    process = container(control)["process"]
    has = set(confinement.EVERY_CAPABILITY) - missing
    sets = ["bounding", "effective", "permitted"] + ["ambient"] * ("raise_ambient_capabilities" in fields)
    for name in sets:
        assert set(process["capabilities"][name]) == has and len(process["capabilities"][name]) == len(has)
    expected = filters.compile(profile.default([f"CAP_{name}" for name in has])).hex()
    assert process["seccomp"] == expected != confinement.default_filter()


def test_a_privileged_workload_has_all_capabilities(control: ControlServer, registry: FakeRegistry, zone: str) -> None:
    image = pulled(control, registry)[-1].spec.digest
    security = common.WorkloadSecuritySpec(privileged=True, disable_all_namespaces=True)
    workload(control, image, zone, security=security)
    made = container(control)
    assert made["process"]["capabilities"]["effective"] == ["ALL"]
    assert made["process"]["no_new_privileges"] is False
    assert "seccomp" not in made["process"]
    assert (made["masked_paths"], made["readonly_paths"]) == ([], [])
    assert set(made["namespaces"].values()) == {"zone"}


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"name": "a/b"}, "INVALID_ARGUMENT", "name"),
        ({"mounts": [{"host_path": "a", "target_path": "/b"}]}, "INVALID_ARGUMENT", "expected the absolute path of"),
        ({"mounts": [{"host_path": "/a\0", "target_path": "/b"}]}, "INVALID_ARGUMENT", "expected the absolute path of"),
        ({"mounts": [{"host_path": "/a", "target_path": "b"}]}, "INVALID_ARGUMENT", "expected an absolute target"),
        ({"mounts": [{"host_path": "/a", "target_path": "/b\0"}]}, "INVALID_ARGUMENT", "expected an absolute target"),
        ({"mounts": [{"host_path": "/a", "target_path": "/b/.."}]}, "INVALID_ARGUMENT", "expected an absolute target"),
        ({"mounts": [{"host_path": "/a", "target_path": "/proc/x"}]}, "INVALID_ARGUMENT", "outside /, /dev, /proc"),
        (
            {"mounts": [{"host_path": f"/{n}", "target_path": path} for n, path in enumerate(("/b", "/c/../b/"))]},
            "INVALID_ARGUMENT",
            "expected each target once, got '/b'",
        ),
        (
            {"mounts": [{"host_path": "/a", "target_path": "/b"}], "scratch_mount": [{"path": "/b/"}]},
            "INVALID_ARGUMENT",
            "expected each target once, got '/b'",
        ),
        (
            {"mounts": [{"host_path": "/a", "target_path": f"/{n}"} for n in range(9)]},
            "INVALID_ARGUMENT",
            "mounts: expected at most 8, got '9'",
        ),
        ({"security": {"disable_namespaces": [0]}}, "UNIMPLEMENTED", "disable_namespaces"),
        ({"security": {"raise_capabilities": ["x y"]}}, "INVALID_ARGUMENT", "raise_capabilities"),
        (
            {"security": {"raise_capabilities": ["KILL"], "drop_capabilities": ["KILL"]}},
            "INVALID_ARGUMENT",
            "drop_capabilities",
        ),
        ({"process": {"user": {"name": "nobody"}}}, "INVALID_ARGUMENT", "nobody"),
        ({"process": {"environment": [{"key": "A=B"}]}}, "INVALID_ARGUMENT", "environment"),
        ({"scratch_mount": [{"path": "tmp"}]}, "INVALID_ARGUMENT", "scratch_mount"),
        ({"cgroup_limits": [{"limit_name": "cgroup.procs", "value": "1"}]}, "INVALID_ARGUMENT", "cgroup_limits"),
    ],
)
def test_what_a_workload_cannot_have_is_refused(
    control: ControlServer, registry: FakeRegistry, zone: str, fields: Any, code: str, named: str
) -> None:
    image = common.OciImageSpec(digest=pulled(control, registry)[-1].spec.digest)
    spec = common.WorkloadSpec(zone_id=zone, image=image, **fields)
    found, text = refusal(control.stub.CreateWorkload, pb.CreateWorkloadRequest(spec=spec))
    assert found.name == code
    assert named in text
    assert control.manager.workloads == {}


def test_a_workload_needs_its_image_as_squashfs(control: ControlServer, registry: FakeRegistry, zone: str) -> None:
    digest = pulled(control, registry, format=TAR)[-1].spec.digest

    def ask(format: int) -> tuple[grpc.StatusCode, str]:
        spec = common.WorkloadSpec(zone_id=zone, image=common.OciImageSpec(digest=digest, format=format))
        return refusal(control.stub.CreateWorkload, pb.CreateWorkloadRequest(spec=spec))

    code, text = ask(SQUASHFS)
    assert code is grpc.StatusCode.NOT_FOUND
    assert "expected it as squashfs, got it as tar" in text
    assert ask(TAR)[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_workload_names_resolve(control: ControlServer, registry: FakeRegistry, zone: str) -> None:
    image = pulled(control, registry)[-1].spec.digest
    workload_id = workload(control, image, zone, name="web")
    assert control.stub.ResolveWorkloadId(pb.ResolveWorkloadIdRequest(name="web")).workload_id == workload_id
    assert control.stub.ResolveWorkloadId(pb.ResolveWorkloadIdRequest(name="x")).workload_id == ""
    assert list(control.stub.ResolveWorkloadIds(pb.ResolveWorkloadIdsRequest(name="web")).workload_ids) == [workload_id]
