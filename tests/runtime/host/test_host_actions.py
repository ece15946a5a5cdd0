"""A boot as a user's command sees it, on a host that records what it is asked."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from pipeline.bundle import manifest
from pipeline.bundle.model import Bundle, Port, Process
from pipeline.errors import StoreDamaged
from pipeline.progress import Progress
from pipeline.recipe import UnknownName
from pipeline.store import Store
from runtime.errors import RuntimeFault
from runtime.host import actions
from runtime.host.faults import RemoteFault


class RecordingHost:
    """A host without Xen: answers as zoned would, and can be told to fail a method."""

    name = "recording"

    def __init__(self, failing: str = "") -> None:
        self.calls: list[str] = []
        self.failing = failing
        self.zones: dict[str, dict[str, Any]] = {}

    def up(self, progress: Progress) -> None:
        self.calls.append("up")

    def is_up(self) -> bool:
        return True

    def call(
        self, method: str, params: dict[str, Any], *, on_event: Any = None, timeout_s: float = 0
    ) -> dict[str, Any]:
        self.calls.append(method if method != "wait" or params.get("ports", True) else "wait workload")
        if method == self.failing:
            raise RuntimeFault("zone web", got=f"{method} failed")
        if method == "list":
            return {"zones": list(self.zones.values())}
        if method == "boot":
            self.zones["web"] = {
                "name": "web",
                "state": "running",
                "published": [],
                "addresses": ["10.75.0.2"],
                "exit_text": "",
                "blobs": [],
                "confirmed": False,
            }
            return self.zones["web"]
        if method == "stop":
            return self.zones.pop("web")
        return self.zones["web"]

    def provide(self, blobs: Any) -> dict[str, Any]:
        self.calls.append("provide")
        return {}

    def listen_for(self, ports: Any) -> list[Any]:
        self.calls.append("listen_for")
        return []

    def expose(self, published: Any) -> None:
        self.calls.append("expose")

    def tidy(self) -> None:
        self.calls.append("tidy")

    def exclusive(self) -> Any:
        return contextlib.nullcontext()


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "store")
    bundle = Bundle(
        name="web",
        kernel=store.put(b"kernel"),
        kernel_release="6",
        initrd=(store.put(b"initrd"),),
        modules=(),
        rootfs=store.put(b"rootfs"),
        process=Process(("/x",), ()),
        ports=(Port("127.0.0.1", 8080, 80),),
    )
    manifest.write(store, bundle)
    return store


def test_boot_checks_then_brings_up_then_builds_then_waits(store):
    host = RecordingHost()
    booted = actions.boot(host, store, "web", progress=Progress())
    wanted = ["up", "list", "tidy", "listen_for", "provide", "boot", "expose", "wait workload", "wait", "confirm"]
    assert host.calls == wanted
    assert [name for name, *_ in booted.steps][:3] == ["check artifacts", "host up", "plug disks"]


def test_boot_without_waiting_asks_for_nothing_more(store):
    host = RecordingHost()
    actions.boot(host, store, "web", wait=False, progress=Progress())
    assert "wait" not in host.calls and "wait workload" not in host.calls


@pytest.mark.parametrize("failing", ["wait", "expose"])
def test_a_boot_that_fails_after_the_domain_runs_leaves_no_zone(store, failing):
    host = RecordingHost(failing)
    if failing == "expose":
        host.expose = lambda published: (_ for _ in ()).throw(RuntimeFault("port 8080", got="taken"))  # type: ignore
    with pytest.raises(RuntimeFault):
        actions.boot(host, store, "web", progress=Progress())
    assert host.zones == {}
    assert host.calls[-1] == "tidy"


def test_unknown_zone_names_near_ones(store):
    with pytest.raises(UnknownName, match="did you mean web"):
        actions.boot(RecordingHost(), store, "wep", progress=Progress())


def test_altered_artifact_is_named_before_the_host_is_touched(store):
    _, bundle = manifest.find(store, "web")
    path = store.path(bundle.rootfs.digest)
    path.chmod(0o644)
    path.write_bytes(b"rootfX")
    host = RecordingHost()
    with pytest.raises(StoreDamaged, match=r"zone web: rootfs.squashfs .*\./doit bundle zone=web"):
        actions.boot(host, store, "web", progress=Progress())
    assert host.calls == []


def test_a_zone_whose_booter_died_is_ended_before_it_is_booted_again(store):
    host = RecordingHost()
    actions.boot(host, store, "web", wait=False, progress=Progress())
    host.calls.clear()
    actions.boot(host, store, "web", wait=False, progress=Progress())
    assert host.calls.index("stop") < host.calls.index("boot")


def test_two_boots_of_one_zone_at_once_are_refused(store):
    with store.try_lock("boot-web") as held, pytest.raises(RuntimeFault, match="being booted by another command"):
        assert held
        actions.boot(RecordingHost(), Store(store.root), "web", progress=Progress())


def test_a_zone_that_runs_is_refused_and_left_alone(store):
    host = RecordingHost()
    actions.boot(host, store, "web", wait=False, progress=Progress())
    host.zones["web"]["confirmed"] = True
    with pytest.raises(actions.ZoneBusy, match="it runs already"):
        actions.boot(host, store, "web", progress=Progress())
    assert "web" in host.zones


def test_a_refusal_by_zoned_stops_no_zone(store):
    host = RecordingHost()
    answer = host.call

    def refuse(method: str, params: dict[str, Any], **options: Any) -> Any:
        if method == "boot":
            host.calls.append("boot")
            raise RemoteFault("zone web", got="too little memory")
        return answer(method, params, **options)

    host.call = refuse  # type: ignore[method-assign]
    with pytest.raises(RemoteFault):
        actions.boot(host, store, "web", progress=Progress())
    assert "stop" not in host.calls
