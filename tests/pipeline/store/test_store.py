"""The store: nothing half-written is ever named, nothing altered is ever used."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from pipeline.cachekey import action_key
from pipeline.env import Env, cached, intact
from pipeline.errors import DigestMismatch, StoreDamaged
from pipeline.oci import Descriptor, Digest
from pipeline.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def damage(store: Store, descriptor: Descriptor) -> None:
    path = store.path(descriptor.digest)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def test_bytes_come_back_under_their_digest(store):
    descriptor = store.put(b"hello")
    assert descriptor.digest == Digest.of(b"hello")
    assert store.read(descriptor.digest) == b"hello"
    assert store.path(descriptor.digest).stat().st_mode & 0o777 == 0o444


def test_writer_publishes_nothing_that_differs_from_what_was_expected(store):
    expected = Descriptor("x", Digest.of(b"good"), 4)
    for data in (b"evil", b"good+"):
        with pytest.raises(DigestMismatch), store.writer() as writer:
            writer.write(data)
            writer.commit(expected=expected)
    assert list(store.blobs.iterdir()) == [] and list(store.tmp.iterdir()) == []


def test_altered_object_is_never_read_and_is_healed_by_the_next_put(store):
    descriptor = store.put(b"hello")
    damage(store, descriptor)
    with pytest.raises(StoreDamaged, match="build again to heal it"):
        store.read(descriptor.digest)
    assert not intact(store, descriptor)
    store.put(b"hello")
    assert store.read(descriptor.digest) == b"hello"


@pytest.mark.parametrize("way", ["writer", "file"])
def test_sound_object_stays_the_same_file_when_it_is_made_again_and_an_altered_one_does_not(store, way):
    def make():
        if way == "writer":
            with store.writer() as writer:
                writer.write(b"twice")
                return writer.commit()
        with store.scratch() as scratch:
            (scratch / "made").write_bytes(b"twice")
            return store.put_file(scratch / "made")

    path = store.path(make().digest)
    with open(path, "rb") as first:  # held open, so that its inode is not used again
        make()
        assert os.path.samestat(os.fstat(first.fileno()), path.stat())
        assert list(store.tmp.iterdir()) == []
        path.chmod(0o644)
        path.write_bytes(b"other")
        make()
        assert not os.path.samestat(os.fstat(first.fileno()), path.stat())
    assert path.read_bytes() == b"twice" and path.stat().st_mode & 0o777 == 0o444


def test_store_is_an_image_layout_others_read(store):
    manifest = store.put(b"{}", "application/vnd.oci.image.manifest.v1+json")
    store.tag("zones/web", manifest)
    store.tag("zones/web", store.put(b"{ }", "application/vnd.oci.image.manifest.v1+json"))
    assert (store.root / "oci-layout").read_text() == '{"imageLayoutVersion":"1.0.0"}'
    assert list(store.tags()) == ["zones/web"]
    assert store.tags()["zones/web"].digest == Digest.of(b"{ }")


def test_result_is_remembered_until_a_blob_of_it_is_damaged(store):
    env, made = Env(store), []

    def build() -> Descriptor:
        made.append(1)
        return store.put(b"result")

    def ask() -> Descriptor:
        return cached(env, Descriptor, stage="s", version=1, params={}, inputs={}, build=build)

    first = ask()
    assert ask() == first and len(made) == 1
    damage(store, first)
    assert ask() == first and len(made) == 2
    assert store.read(first.digest) == b"result"


def test_unreadable_result_file_counts_as_none(store):
    key = action_key("s", 1, params={}, inputs={})
    store.put_result(key, {"a": 1})
    assert store.result(key) == {"a": 1}
    (store.results / f"{key}.json").write_bytes(b'{"a":')
    assert store.result(key) is None


def test_action_key_is_the_same_everywhere():
    key = action_key("squash", 3, params={"level": 3}, inputs={"tree": "sha256:00"}, tools={"tar2sqfs": "1.2.0"})
    assert key != action_key(
        "squash", 4, params={"level": 3}, inputs={"tree": "sha256:00"}, tools={"tar2sqfs": "1.2.0"}
    )
    assert key == "97dfe7de908477d871981fb37fad0801747b6b702e1726b5f8789182936861d8"


def _build_slowly(root: str, log: str) -> None:
    store = Store(root)  # type: ignore[arg-type]

    def build() -> Descriptor:
        with open(log, "a") as file:
            file.write("built\n")
        return store.put(os.urandom(8))

    cached(Env(store), Descriptor, stage="s", version=1, params={}, inputs={}, build=build)


def test_two_processes_that_want_one_thing_make_it_once(tmp_path):
    log = tmp_path / "log"
    root = tmp_path / "store"
    Store(root)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_build_slowly, args=(root, str(log))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert log.read_text() == "built\n"


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.store import Store
store = Store(Path(sys.argv[1]))
with store.scratch() as scratch, store.writer() as writer:
    (scratch / "file").write_bytes(b"x")
    writer.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_uses_is_not(tmp_path):
    root = tmp_path / "store"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(root)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((root / "tmp").iterdir())) == 2
    store = Store(root)
    assert list(store.tmp.iterdir()) == []
    with store.scratch() as scratch, store.writer() as writer:
        writer.write(b"in use")
        Store(root)
        assert scratch.is_dir()
        assert store.read(writer.commit().digest) == b"in use"
