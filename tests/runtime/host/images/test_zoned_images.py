"""Images in zoned: children that pull and pack from the scripted registry, shared, cancelled, and what is kept."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.places import open_to_others
from support.registry import FakeRegistry, Fault
from support.tars import image_of, tar_of, write_layout

from pipeline.env import Env
from pipeline.fetch.errors import NoSuchImage
from pipeline.oci import Digest
from pipeline.pack import pack_image
from pipeline.store import Store
from runtime.host.images import catalog
from runtime.host.images.account import account_of, hand_over, open_store
from runtime.host.images.errors import ChildDied, ImageFault
from runtime.host.images.model import (
    Credentials,
    Format,
    ImportWork,
    LayerPhase,
    Packed,
    Phase,
    Progress,
    PullWork,
)
from runtime.host.images.tasks import ImageTasks

PASSWD = b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n"


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with contextlib.closing(FakeRegistry()) as found:
        yield found


def an_image(text: bytes = b"hello"):
    return image_of(
        tar_of({"etc/": None, "etc/passwd": PASSWD}), tar_of({"a": text, "big": bytes(200_000)}), config={"Cmd": ["/a"]}
    )


async def everything(tasks: ImageTasks, work) -> tuple[list[Progress], Packed]:
    news = [found async for found in tasks.follow(work)]
    assert isinstance(news[-1], Packed)
    return news[:-1], news[-1]


def test_pull_packs_names_and_tells_how_far_it_is(tmp_path: Path, registry: FakeRegistry) -> None:
    image = an_image()
    reference = registry.add("app", "v1", image)
    store = Store(tmp_path / "store")
    progress, packed = asyncio.run(everything(ImageTasks(store.root), PullWork(reference)))
    assert str(packed.digest) == image.digest
    assert (tmp_path / "out").write_bytes(store.read(packed.rootfs.digest))
    assert pack_image(reference, tmp_path / "again", env=Env(Store(tmp_path / "other"))) == packed.rootfs.digest
    phases = [state.phase for state in progress]
    assert phases == sorted(phases, key=list(Phase).index)
    assert {Phase.STARTED, Phase.RESOLVED, Phase.PACK, Phase.COMPLETE} <= set(phases)
    assert [layer.id for layer in progress[-1].layers] == [
        layer["digest"] for layer in json.loads(image.manifest)["layers"]
    ]
    assert {layer.phase for layer in progress[-1].layers} == {LayerPhase.EXTRACTED}
    assert packed.passwd is not None and store.read(packed.passwd.digest) == PASSWD
    (entry,) = catalog.entries(store)
    assert entry.packed == packed
    assert entry.names == (reference.removeprefix("docker://"),)
    assert catalog.find(store, image.digest, Format.SQUASHFS) == packed
    assert store.read(packed.manifest.digest) == image.manifest


def test_what_was_pulled_is_not_asked_for_again_unless_it_shall_be(tmp_path: Path, registry: FakeRegistry) -> None:
    reference = registry.add("app", "v1", an_image())

    async def pull(**how: bool) -> Packed:
        return (await everything(tasks, PullWork(reference, **how)))[1]

    async def main() -> None:
        first = await pull()
        registry.requests.clear()
        assert await pull() == first
        assert registry.requests == []
        registry.add("app", "v1", an_image(b"other"))
        assert await pull() == first
        assert (await pull(update=True)).digest != first.digest

    tasks = ImageTasks(Store(tmp_path / "store").root)
    asyncio.run(main())


def test_latest_is_always_asked_for(tmp_path: Path, registry: FakeRegistry) -> None:
    reference = registry.add("app", "latest", an_image())
    tasks = ImageTasks(Store(tmp_path / "store").root)

    async def main() -> None:
        first = await tasks.do(PullWork(reference))
        registry.add("app", "latest", an_image(b"other"))
        second = await tasks.do(PullWork(reference))
        assert isinstance(first, Packed) and isinstance(second, Packed)
        assert second.digest != first.digest

    asyncio.run(main())


def test_those_who_want_the_same_share_one_child(tmp_path: Path, registry: FakeRegistry) -> None:
    image = an_image()
    reference = registry.add("app", "v1", image)
    tasks = ImageTasks(Store(tmp_path / "store").root)

    async def main() -> None:
        first, second = await asyncio.gather(*(everything(tasks, PullWork(reference)) for _ in range(2)))
        assert first[1] == second[1]
        assert first[0][-1] == second[0][-1]
        assert tasks.runners() == []

    asyncio.run(main())
    assert len(registry.paths("/manifests/v1")) == 1
    assert all(len(registry.paths(layer["digest"])) == 1 for layer in json.loads(image.manifest)["layers"])


def test_callers_with_other_credentials_do_not_share(tmp_path: Path, registry: FakeRegistry) -> None:
    reference = registry.add("app", "v1", an_image())
    registry.basic = "me:secret"
    tasks = ImageTasks(Store(tmp_path / "store").root)

    async def main() -> None:
        good = PullWork(reference, credentials=Credentials("me", "secret"))
        bad = PullWork(reference, credentials=Credentials("me", "wrong"))
        found = await asyncio.gather(tasks.do(good), tasks.do(bad), return_exceptions=True)
        assert isinstance(found[0], Packed)
        assert isinstance(found[1], ImageFault) and found[1].kind == "RegistryError"
        assert "wrong" not in str(found[1])

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["basic", "identity", "registry"])
def test_each_kind_of_credentials_is_used(tmp_path: Path, registry: FakeRegistry, kind: str) -> None:
    reference = registry.add("app", "v1", an_image())
    given = Credentials()
    if kind == "basic":
        registry.basic, given = "me:secret", Credentials("me", "secret")
    elif kind == "identity":
        registry.token, registry.identity = "tok", "refresh"
        given = Credentials(identity_token="refresh")
    else:
        registry.token, given = "tok", Credentials(registry_token="tok")
    registry.token_user = "nobody:else"
    tasks = ImageTasks(Store(tmp_path / "store").root)
    assert isinstance(asyncio.run(tasks.do(PullWork(reference, credentials=given))), Packed)
    with pytest.raises(ImageFault):
        asyncio.run(ImageTasks(Store(tmp_path / "second").root).do(PullWork(reference)))
    assert b"secret" not in b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())


def test_the_last_who_leaves_ends_the_child(tmp_path: Path, registry: FakeRegistry) -> None:
    reference = registry.add("app", "v1", an_image())
    registry.faults.append(Fault("/blobs/", delay_s=3600, times=9))
    tasks = ImageTasks(Store(tmp_path / "store").root)

    async def until_download(news) -> None:
        async for state in news:
            if isinstance(state, Progress) and state.phase is Phase.RESOLVING:
                return

    async def main() -> None:
        first, second = tasks.follow(PullWork(reference)), tasks.follow(PullWork(reference))
        await until_download(first)
        await until_download(second)
        await first.aclose()
        assert len(tasks.runners()) == 1
        await second.aclose()
        assert tasks.runners() == []

    asyncio.run(asyncio.wait_for(main(), 120))
    assert children_of(os.getpid()) == []


HALF_DONE = """
import json, pathlib, sys, time
from pipeline.jsonmodel import to_json
from pipeline.store import Store
from runtime.host.images.model import Phase, Progress
store = Store(pathlib.Path(json.loads(sys.stdin.readline())["store"]))
with store.writer() as blob, store.scratch() as scratch:
    blob.write(b"half of it")
    (scratch / "spool").touch()
    print(json.dumps({"progress": to_json(Progress(phase=Phase.LAYER_DOWNLOAD))}), flush=True)
    time.sleep(600)
"""


def test_what_a_child_that_is_ended_was_making_goes_with_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    tasks = ImageTasks(store.root, command=[sys.executable, "-c", HALF_DONE])

    async def main() -> None:
        with store.writer():  # zoned's own work there goes on
            news = tasks.follow(PullWork("127.0.0.1:9/app:v1"))
            async for state in news:
                if isinstance(state, Progress) and state.phase is Phase.LAYER_DOWNLOAD:
                    break
            assert len(list(store.tmp.iterdir())) == 3
            await news.aclose()
            assert len(list(store.tmp.iterdir())) == 1

    asyncio.run(asyncio.wait_for(main(), 120))
    assert list(store.tmp.iterdir()) == []


def test_a_child_ends_when_zoned_dies(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "runtime.host.images.child"]

    async def main() -> int:
        request = {"store": str(tmp_path / "store"), "kind": "PullWork", "work": {"image": "127.0.0.1:9/app:v1"}}
        child = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        assert child.stdin is not None
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.close()
        return await asyncio.wait_for(child.wait(), 120)

    assert asyncio.run(main()) == -9


def test_faults_keep_their_fields_and_their_kind(tmp_path: Path, registry: FakeRegistry) -> None:
    registry.add("app", "v1", an_image())
    tasks = ImageTasks(Store(tmp_path / "store").root)
    with pytest.raises(ImageFault) as caught:
        asyncio.run(tasks.do(PullWork(f"docker://{registry.host}/app:v2")))
    assert caught.value.kind == "NoSuchImage"
    assert caught.value.subject.endswith("app:v2")
    with pytest.raises(ImageFault) as caught:
        asyncio.run(tasks.do(PullWork(f"oci:{tmp_path}")))
    assert caught.value.kind == "BadReference"


def test_a_child_without_a_word_is_told_with_its_last_one(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('no memory left')")
    with pytest.raises(ChildDied, match="code 1: no memory left"):
        asyncio.run(ImageTasks(Store(tmp_path).root, command=command).do(PullWork("app")))


@pytest.mark.parametrize("named", [True, False])
def test_import_takes_an_archive(tmp_path: Path, named: bool) -> None:
    image = an_image()
    layout = write_layout(tmp_path / "layout", {"t": image})
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(layout, ".")
    store = Store(tmp_path / "store")
    work = ImportWork(str(archive), "example.org/app:v1" if named else "", image.digest, Format.TAR)
    packed = asyncio.run(ImageTasks(store.root).do(work))
    assert isinstance(packed, Packed)
    with tarfile.open(fileobj=io.BytesIO(store.read(packed.rootfs.digest))) as tar:
        assert tar.extractfile("a").read() == b"hello"
    assert catalog.entries(store)[0].names == (("example.org/app:v1",) if named else ())
    other = "sha256:" + base64.b16encode(bytes(32)).decode().lower()
    with pytest.raises(ImageFault) as caught:
        asyncio.run(ImageTasks(store.root).do(ImportWork(str(archive), digest=other)))
    assert caught.value.kind == "NoSuchImage"


def test_images_are_listed_beside_what_another_zonewright_packed(tmp_path: Path, registry: FakeRegistry) -> None:
    reference = registry.add("app", "v1", an_image())
    store = Store(tmp_path / "store")
    packed = asyncio.run(ImageTasks(store.root).do(PullWork(reference)))
    assert isinstance(packed, Packed)
    other = store.put_manifest([packed.manifest], artifact_type="application/vnd.zonewright.packed.v2")
    hexadecimal = packed.digest.hex
    for tag in (f"zip/sha256-{hexadecimal}", "squashfs/none", f"erofs/sha256-{hexadecimal}"):
        store.tag(catalog.TAG_PREFIX + tag, other)
    assert [entry.packed for entry in catalog.entries(store)] == [packed]


@pytest.mark.parametrize("artifact", [{}, {"layers": []}, {"layers": 7}, {"layers": [], "config": None}])
def test_image_that_another_zonewright_packed_is_none_that_can_be_had(
    tmp_path: Path, artifact: dict[str, object]
) -> None:
    store = Store(tmp_path / "store")
    digest = Digest.of(b"image")
    document = store.put(json.dumps(artifact).encode(), "application/vnd.oci.image.manifest.v1+json")
    store.tag(f"{catalog.TAG_PREFIX}squashfs/sha256-{digest.hex}", document)
    with pytest.raises(NoSuchImage, match="expected it as squashfs, got one that another zonewright packed"):
        catalog.find(store, str(digest), Format.SQUASHFS)
    assert catalog.entries(store) == []


def test_formats_are_separate_and_the_last_takes_the_names_along(tmp_path: Path, registry: FakeRegistry) -> None:
    image = an_image()
    reference = registry.add("app", "v1", image)
    store = Store(tmp_path / "store")
    tasks = ImageTasks(store.root)
    for format in (Format.SQUASHFS, Format.TAR):
        asyncio.run(tasks.do(PullWork(reference, format)))
    assert [entry.packed.format for entry in catalog.entries(store)] == [Format.SQUASHFS, Format.TAR]
    assert catalog.remove(store, image.digest, Format.TAR)
    assert not catalog.remove(store, image.digest, Format.TAR)
    assert catalog.entries(store)[0].names
    assert catalog.remove(store, image.digest, None)
    assert store.tags() == {}


def test_overwrite_makes_a_damaged_image_anew(tmp_path: Path, registry: FakeRegistry) -> None:
    reference = registry.add("app", "v1", an_image())
    store = Store(tmp_path / "store")
    tasks = ImageTasks(store.root)
    packed = asyncio.run(tasks.do(PullWork(reference, Format.TAR)))
    assert isinstance(packed, Packed)
    path = store.path(packed.rootfs.digest)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    asyncio.run(tasks.do(PullWork(reference, Format.TAR, overwrite=True)))
    assert Digest.of(path.read_bytes()) == packed.rootfs.digest


@pytest.mark.root
def test_a_child_of_root_works_as_the_owner_of_the_store(tmp_path: Path, registry: FakeRegistry) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    reference = registry.add("app", "v1", an_image())
    root = tmp_path / "store"
    root.mkdir()
    open_to_others(tmp_path)
    os.chown(root, 65534, 65534)
    store = open_store(root)
    assert account_of(root) is not None
    packed = asyncio.run(ImageTasks(root).do(PullWork(reference)))
    assert isinstance(packed, Packed)
    assert store.path(packed.rootfs.digest).stat().st_uid == 65534
    assert store.read(packed.rootfs.digest)


@pytest.mark.root
def test_links_in_the_directories_of_the_stores_owner_give_away_nothing_of_roots(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root, secret = tmp_path / "store", tmp_path / "shadow"
    root.mkdir()
    secret.touch()
    os.chown(root, 65534, 65534)
    store = open_store(root)
    (store.locks / "link").symlink_to(secret)
    (store.locks / "dangling").symlink_to(tmp_path / "none")
    open_store(root)
    hand_over(root, store.locks / "link")
    assert (secret.stat().st_uid, secret.stat().st_gid) == (0, 0)


def test_who_asks_for_work_that_is_being_ended_gets_a_child_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.host.images.tasks.TERM_WAIT_S", 600.0)  # it ends when it may, and is not killed before
    slow = tmp_path / "child.py"
    slow.write_text(
        "import os, signal, sys\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "sys.stdin.readline()\n"  # before it is asked for something nobody knows it yet
        "open(f'began-{os.getpid()}', 'w').close()\n"
        "signal.sigwait({signal.SIGTERM})\n"
        "open(f'ending-{os.getpid()}', 'w').close()\n"
        "open('may-end', 'rb').read()\n"
        "os._exit(1)\n"
    )
    may_end = tmp_path / "may-end"
    os.mkfifo(may_end)
    held = os.open(may_end, os.O_RDWR)

    async def until(what: str, number: int) -> None:
        while len(list(tmp_path.glob(f"{what}-*"))) < number:
            await asyncio.sleep(0.02)

    async def run() -> None:
        tasks = ImageTasks(Store(tmp_path / "store").root, command=(sys.executable, str(slow)))
        work = PullWork("docker://127.0.0.1:1/none:1", Format.TAR)
        first = asyncio.create_task(tasks.do(work))
        await asyncio.wait_for(until("began", 1), 120)
        first.cancel()
        await asyncio.wait_for(until("ending", 1), 120)
        assert not first.done(), "its child takes its time"
        second = asyncio.create_task(tasks.do(work))
        await asyncio.wait_for(until("began", 2), 120)
        # Who reads by now comes to an end, and who opens it from now on finds one.
        (tmp_path / "now").touch()
        (tmp_path / "now").rename(may_end)
        os.close(held)
        with contextlib.suppress(asyncio.CancelledError):
            await first
        assert len(tasks.runners()) == 1 and not second.done()
        second.cancel()
        await asyncio.wait([second])
        assert tasks.runners() == []

    asyncio.run(run())


def children_of(pid: int) -> list[str]:
    """Command lines of the living children of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if fields[1] == str(pid) and fields[0] != "Z":
                found.append((path.parent / "cmdline").read_text())
    return [line for line in found if "runtime.host.images.child" in line]
