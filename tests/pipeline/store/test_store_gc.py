"""`zone store gc`: what is needed stays, whoever needs it and whenever that began; what is not needed goes."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from support.stores import built, image, key_of, tree

from pipeline.durable import take
from pipeline.oci import Descriptor, Digest
from pipeline.progress import Progress
from pipeline.store import Store, usedays
from pipeline.store.collect import Collected, collect

GIB = 1 << 30
COLLECTIONS = 40  # beside builds


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def dead(store: Store) -> None:
    """Give up this process's leases, as its end would."""
    store.__dict__["_lease"].__init__(store.locks)
    for path in store.locks.glob("lease.*"):
        path.unlink(missing_ok=True)


def gc(store: Store, *, days: float = 30, size: int = GIB, **more: object) -> Collected:
    dead(store)
    return collect(Store(store.root), keep_days=days, keep_bytes=size, **more)  # type: ignore[arg-type]


def pass_days(store: Store, count: int) -> None:
    """`count` days of use."""
    clock = store.used / "clock"
    day = int(clock.read_text().split()[0])
    clock.write_text(f"{day + count} {time.strftime('%Y-%m-%d', time.gmtime())}\n")


def there(store: Store, *blobs: Descriptor) -> list[bool]:
    return [store.path(blob.digest).exists() for blob in blobs]


def test_what_nothing_names_goes_and_what_has_a_name_stays_with_all_it_leads_to(store: Store) -> None:
    layer, orphan = store.put(b"layer"), store.put(b"orphan")
    manifest = image(store, "zones/web", [layer])
    done = gc(store, days=0)
    assert there(store, layer, manifest, orphan) == [True, True, False]
    assert done.freed["blobs"].objects == 1 and done.kept.objects == 3  # with the empty config


def test_recent_result_keeps_its_blobs_and_an_old_one_goes_with_them(store: Store) -> None:
    old = built(store, "old")
    pass_days(store, 29)
    assert there(Store(store.root), old) == [True]
    gc(store)
    assert there(store, old) == [True]
    new = built(Store(store.root), "new")
    pass_days(store, 1)
    gc(store)
    assert there(store, old, new) == [False, True]
    assert [path.stem for path in store.results.iterdir()] == [key_of(store, new)]


def test_using_a_result_makes_it_recent_again(store: Store) -> None:
    blob = built(store, "a")
    for _ in range(3):
        pass_days(store, 20)
        built(Store(store.root), "a")
        gc(store)
    assert there(store, blob) == [True]


def test_least_recently_used_results_go_until_the_rest_fits(store: Store) -> None:
    blobs = []
    for name in ("first", "second", "third"):
        blobs.append(built(Store(store.root), name, name.encode() * 5000))
        pass_days(store, 1)
    gc(store, size=2 * 32768)
    assert there(store, *blobs) == [False, True, True]


def test_what_has_a_name_stays_however_little_is_to_be_kept(store: Store) -> None:
    layer = store.put(b"layer" * 10000)
    image(store, "zones/web", [layer])
    gc(store, days=0, size=0)
    assert there(store, layer) == [True]


def test_result_whose_blobs_stay_anyway_stays_too(store: Store) -> None:
    layer = built(store, "layer")
    image(store, "zones/web", [layer])
    gc(store, days=0)
    made: list[str] = []
    built(Store(store.root), "layer", made=made)
    assert made == []


def test_what_runs_stays_though_its_name_was_given_to_another(store: Store) -> None:
    kernel = store.put(b"kernel")
    manifest = image(store, "zones/web", [kernel])
    image(store, "zones/web", [store.put(b"newer")])
    gc(store, days=0, in_use=[manifest.digest])
    assert there(store, manifest, kernel) == [True, True]
    gc(store, days=0)
    assert there(store, manifest, kernel) == [False, False]


def test_locks_and_results_of_a_checkout_that_builds_here_keep_what_they_name(store: Store, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    deb, layer, made = store.put(b"deb"), store.put(b"layer"), built(store, "stage")
    pinned = image(store, "x", [layer])
    store.untag("x")
    (checkout / "build" / "lock").mkdir(parents=True)
    (checkout / "build" / "squash").mkdir()
    (checkout / "build" / "lock" / "web.json").write_text(json.dumps({"packages": [{"sha256": deb.digest.hex}]}))
    (checkout / "build" / "squash" / "web.json").write_text(json.dumps({"image": made.to_json()}))
    pins = {"docker://host/app:1": {"linux/amd64": str(pinned.digest)}}
    (checkout / "images.lock.json").write_text(json.dumps(pins))
    store.register(checkout)
    pass_days(store, 100)
    gc(store)
    assert there(store, deb, layer, pinned, made) == [True, True, True, True]
    gc(store, days=0)
    assert there(store, deb, layer, pinned, made) == [True, True, True, False]
    checkout.rename(tmp_path / "gone")
    gc(store, days=0)
    assert there(store, deb, layer, pinned) == [False, False, False]


def test_dry_run_removes_nothing_and_counts_the_same(store: Store) -> None:
    store.put(b"orphan")
    built(store, "old")
    pass_days(store, 40)
    dead(store)
    before = tree(store.blobs) | tree(store.results)
    counted = gc(store, dry_run=True)
    assert tree(store.blobs) | tree(store.results) == before
    assert counted.freed == gc(store).freed
    assert counted.freed["blobs"].objects == 2 and counted.freed["results"].objects == 1


def test_clock_that_jumps_by_a_year_either_way_makes_nothing_old(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    blob, year = built(store, "a"), 365 * 86400
    now, gmtime = time.time(), time.gmtime
    for shift in (year, -year, 0, year):
        moved = gmtime(now + shift)
        monkeypatch.setattr(usedays.time, "gmtime", lambda seconds=None, moved=moved: moved)
        gc(store)
        assert there(store, blob) == [True]
    assert int((store.used / "clock").read_text().split()[0]) == 3  # three dates were seen, each once


def test_old_file_times_and_lost_stamps_make_nothing_old(store: Store) -> None:
    blob = built(store, "a")
    for path in (*store.root.rglob("*"),):
        os.utime(path, (0, 0))
    gc(store)
    for path in store.used.iterdir():
        path.write_bytes(b"\xff garbage")
    gc(store)
    for path in store.used.iterdir():
        path.unlink()
    gc(store)
    assert there(store, blob) == [True]


class AfterMarking(Progress):
    """Does something once gc has decided what to remove and has not begun to."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    @contextlib.contextmanager
    def bar(self, title: str, *, total: int | None = None, unit: str = "B") -> Iterator[object]:  # type: ignore[override]
        self._act()
        with super().bar(title, total=total, unit=unit) as bar:
            yield bar


def in_a_process(work: Callable[..., None], *arguments: object) -> None:
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def _remember(root: Path) -> None:
    store = Store(root)
    built(store, "garbage")  # finds the blob a crashed build left, and makes a result of it
    image(store, "zones/new", [store.put(b"garbage" * 100), store.put(b"quite new")])


def test_what_a_build_makes_or_finds_between_mark_and_sweep_survives_though_the_build_has_ended(store: Store) -> None:
    garbage, orphan = store.put(b"garbage" * 100), store.put(b"orphan")
    gc(store, days=30, progress=AfterMarking(lambda: in_a_process(_remember, store.root)))
    assert there(store, garbage, orphan) == [True, False]
    again = Store(store.root)
    for name in again.tags():
        document = again.read_json(again.tags()[name].digest)
        assert all(again.verify(Digest.parse(layer["digest"])) for layer in document["layers"])
    made: list[str] = []
    built(again, "garbage", made=made)
    assert made == []


MAKES = """
import sys, time
from pathlib import Path
from pipeline.store import Store
store = Store(Path(sys.argv[1]))
store.put(b"made, not yet remembered")
print("made", flush=True)
time.sleep(600)
"""


def test_blob_that_a_living_build_has_not_yet_remembered_survives_until_it_is_dead(store: Store) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", MAKES, str(store.root)], env=environment, stdout=subprocess.PIPE
    ) as builder:
        assert builder.stdout is not None and builder.stdout.readline() == b"made\n"
        path = store.path(Digest.of(b"made, not yet remembered"))
        collect(store, keep_days=0, keep_bytes=0)
        survived = path.exists()
        builder.send_signal(signal.SIGKILL)
    assert survived
    collect(store, keep_days=0, keep_bytes=0)
    assert not path.exists()
    assert list(store.locks.glob("lease.*")) == []


def test_old_shelves_partials_leftovers_and_idle_locks_go_and_held_ones_stay(store: Store) -> None:
    for name in ("apt/old", "apt/new", "lab/snapshots/old", "lab/snapshots/new", "lab/snapshots/killed.partial"):
        (store.root / name).mkdir(parents=True)
        (store.root / name / "file").write_bytes(b"x" * 5000)
    for name in ("apt-old", "snapshot-old"):
        store.days.note(name)
    pass_days(store, 30)
    later = Store(store.root)
    later.days.note("apt-new")
    later.days.note("snapshot-new")
    (store.results / ".left.json.abc").write_bytes(b"x")
    with store.lock("some-key"), later.lock("other"):
        pass
    with later.lock("held"):
        done = gc(store)
        assert sorted(path.name for path in store.locks.iterdir()) == ["gc", "held", "index", "sweep", "tmp"]
    assert [path.name for path in (store.root / "apt").iterdir()] == ["new"]
    assert [path.name for path in (store.root / "lab" / "snapshots").iterdir()] == ["new"]
    assert {kind: it.objects for kind, it in done.freed.items()} == {
        "lab snapshots": 2,
        "package lists": 1,
        "leftovers": 1,
    }
    assert sorted(path.name for path in store.used.iterdir()) == ["apt-new", "clock", "snapshot-new"]
    assert list(store.results.iterdir()) == [] and list(store.tmp.iterdir()) == []


def test_package_lists_that_are_read_now_stay(store: Store) -> None:
    (store.root / "apt" / "old").mkdir(parents=True)
    store.days.note("apt-old")
    pass_days(store, 50)
    with store.lock("apt-old"):
        gc(store)
        assert (store.root / "apt" / "old").is_dir()


def test_a_writer_takes_over_no_file_that_is_swept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    left = store.tmp / ".index.json.partial"
    left.write_bytes(b"half")
    unlink, waited = Path.unlink, []

    def beside_a_writer(path: Path, missing_ok: bool = False) -> None:
        with pytest.raises(BlockingIOError):
            take(path, wait=False)
        waited.append(path)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", beside_a_writer)
    assert store.sweep() == 1
    assert waited == [left] and not left.exists()


def _churn(root: Path, seed: int, enough: Event) -> None:
    rounds = 0
    while rounds <= 3 or not enough.is_set():
        store = Store(root)
        for step in range(8):
            name = f"{seed % 2}-{(rounds * 5 + step) % 12}"
            blob = built(store, name)
            assert store.read(blob.digest) == name.encode() * 100
        image(store, f"zones/{seed}", [built(store, f"{seed}-layer-{rounds % 3}")])
        rounds += 1


def test_gc_over_and_over_beside_builds_breaks_none_of_them(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    enough = context.Event()
    builders = [context.Process(target=_churn, args=(store.root, seed, enough)) for seed in range(3)]
    for builder in builders:
        builder.start()
    collections = freed = 0
    while (collections < COLLECTIONS or freed <= 20) and all(builder.is_alive() for builder in builders):
        done = collect(Store(store.root), keep_days=0, keep_bytes=0)
        freed += sum(it.objects for it in done.freed.values())
        collections += 1
    enough.set()
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0, 0, 0]
    assert freed > 20, collections
    for descriptor in store.tags().values():
        (layer,) = store.read_json(descriptor.digest)["layers"]
        assert store.verify(Digest.parse(layer["digest"]))
