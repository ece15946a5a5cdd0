from __future__ import annotations

import http.server
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import debs
from support.said import Said

from pipeline.debian import PackageLock
from pipeline.env import Env
from pipeline.errors import DigestMismatch
from pipeline.fetch import debdownload, debian
from pipeline.fetch.debdownload import DownloadFailed, PackageGone
from pipeline.oci import Descriptor
from pipeline.store import Store

DEB = debs.deb_of({"usr/share/tiny": b"tiny\n"})


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Env:
    monkeypatch.setattr(debdownload, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return Env(Store(tmp_path / "store"), Said())


def blobs(env: Env) -> list[str]:
    return sorted(path.name for path in env.store.blobs.iterdir())


def test_packages_land_in_the_store_and_are_not_fetched_again(env: Env, tmp_path: Path) -> None:
    (tmp_path / "tiny.deb").write_bytes(DEB)
    with debs.mirror(tmp_path) as uri:
        lock = debs.lock_of(debs.package_of(DEB, f"{uri}/tiny.deb"))
        found = debian.download(env, lock)
    assert env.store.read(found["tiny"].digest) == DEB
    assert debian.download(env, lock) == found  # the mirror is gone by now


def test_a_package_damaged_in_the_store_is_fetched_again(env: Env, tmp_path: Path) -> None:
    (tmp_path / "tiny.deb").write_bytes(DEB)
    with debs.mirror(tmp_path) as uri:
        lock = debs.lock_of(debs.package_of(DEB, f"{uri}/tiny.deb"))
        path = env.store.path(debian.download(env, lock)["tiny"].digest)
        path.chmod(0o644)
        path.write_bytes(DEB[:-1] + b"!")
        debian.download(env, lock)
    assert path.read_bytes() == DEB


@pytest.mark.parametrize("served", [DEB[:-1] + b"!", DEB[:-10], DEB + b"more"], ids=["altered", "short", "long"])
def test_a_tampered_package_is_refused_and_leaves_nothing(env: Env, tmp_path: Path, served: bytes) -> None:
    (tmp_path / "tiny.deb").write_bytes(served)
    with debs.mirror(tmp_path) as uri, pytest.raises(DigestMismatch, match="package tiny 1: expected"):
        debian.download(env, debs.lock_of(debs.package_of(DEB, f"{uri}/tiny.deb")))
    assert blobs(env) == []
    assert list(env.store.tmp.iterdir()) == []


def test_a_file_uri_is_read_without_a_server(env: Env, tmp_path: Path) -> None:
    (tmp_path / "tiny.deb").write_bytes(DEB)
    lock = debs.lock_of(debs.package_of(DEB, f"file:{tmp_path}/tiny.deb"))
    assert env.store.read(debian.download(env, lock)["tiny"].digest) == DEB


def serve(answer: Callable[[int], tuple[int, bytes]]) -> tuple[http.server.HTTPServer, list[int]]:
    """A server whose answer to its n-th request is `answer(n)`."""
    asked: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(1)
            status, body = answer(len(asked))
            self.send_response(status)
            self.send_header("Content-Length", str(len(DEB)))
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, asked


@pytest.mark.parametrize(
    "first", [(503, b""), (429, b""), (200, DEB[:100])], ids=["unavailable", "too-many", "truncated"]
)
def test_a_passing_fault_is_tried_again(env: Env, first: tuple[int, bytes]) -> None:
    server, asked = serve(lambda n: first if n == 1 else (200, DEB))
    try:
        lock = debs.lock_of(debs.package_of(DEB, f"http://127.0.0.1:{server.server_address[1]}/tiny.deb"))
        found = debian.download(env, lock)
    finally:
        server.shutdown()
        server.server_close()
    assert env.store.read(found["tiny"].digest) == DEB
    assert len(asked) == 2


def test_a_lasting_fault_ends_after_a_few_tries(env: Env) -> None:
    server, asked = serve(lambda n: (503, b""))
    try:
        lock = debs.lock_of(debs.package_of(DEB, f"http://127.0.0.1:{server.server_address[1]}/tiny.deb"))
        with pytest.raises(DownloadFailed, match=r"expected HTTP status 200 .* got 503"):
            debian.download(env, lock)
    finally:
        server.shutdown()
        server.server_close()
    assert len(asked) == debdownload.ATTEMPTS


def test_a_package_gone_from_the_mirror_is_locked_anew_once(
    env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new.deb").write_bytes(DEB)
    with debs.mirror(tmp_path) as uri:
        old = debs.lock_of(debs.package_of(b"old", f"{uri}/old.deb"))
        new = debs.lock_of(debs.package_of(DEB, f"{uri}/new.deb", version="2"))
        answers = [old, new]
        monkeypatch.setattr(debian, "_ask_mirror", lambda *_: answers.pop(0))

        def work(lock: PackageLock) -> dict[str, Descriptor]:
            return debian.download(env, lock)

        path = tmp_path / "lock.json"
        found = debian.with_packages(
            env, work, suite="bookworm", include=["tiny"], essential=False, name="t", path=path
        )
    assert env.store.read(found["tiny"].digest) == DEB
    assert debian.load(path) == new
    assert isinstance(env.progress, Said)
    assert env.progress.lines == ["t: package tiny 1 is no longer on the mirror; locking the packages of bookworm anew"]


def test_a_package_gone_again_right_after_locking_is_an_error(
    env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with debs.mirror(tmp_path) as uri:
        gone = debs.lock_of(debs.package_of(b"old", f"{uri}/old.deb"))
        monkeypatch.setattr(debian, "_ask_mirror", lambda *_: gone)
        with pytest.raises(PackageGone, match="HTTP status 404"):
            debian.with_packages(
                env,
                lambda lock: debian.download(env, lock),
                suite="bookworm",
                include=["tiny"],
                essential=False,
                name="t",
                path=tmp_path / "lock.json",
            )
