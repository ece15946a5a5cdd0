from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
from support import debs

from pipeline.debian import BadStanza, PackageLock, fields_of, locked
from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.fetch import aptsources, debian
from pipeline.fetch.apt import MirrorUnreachable, NoSuchPackage
from pipeline.fetch.aptsources import Source
from pipeline.jsonmodel import from_json, to_json
from pipeline.store import Store

needs_apt = pytest.mark.skipif(
    shutil.which("apt-get") is None or not Path(aptsources.KEYRING).is_file(),
    reason="needs apt and Debian's keyring",
)


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Env:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return Env(Store(tmp_path / "store"))


def resolve_tiny(env: Env, path: Path, **more: bool) -> PackageLock:
    return debian.resolve(env, suite="bookworm", include=["tiny"], essential=False, name="t", path=path, **more)


def test_a_lock_survives_its_json_form() -> None:
    lock = debs.lock_of(debs.package_of(b"deb", "http://a.example/t.deb", depends="libc6 (>= 2)"))
    assert from_json(PackageLock, to_json(lock)) == lock


def test_a_paragraph_without_a_hash_is_refused() -> None:
    with pytest.raises(BadStanza, match="SHA256"):
        locked("Package: a\nVersion: 1\nArchitecture: all\nFilename: a.deb\nSize: 3\n", "http://a.example/a.deb")


def test_continuation_lines_belong_to_their_field() -> None:
    assert fields_of("Description: short\n long: text\n .\nSize: 1\n") == {
        "Description": "short\nlong: text\n.",
        "Size": "1",
    }


def test_a_saved_lock_is_used_without_asking_the_mirror(
    env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "lock" / "t.json", []
    lock = debs.lock_of(debs.package_of(b"deb", "http://a.example/t.deb"))
    monkeypatch.setattr(debian, "_ask_mirror", lambda *_: asked.append(1) or lock)
    assert resolve_tiny(env, path) == resolve_tiny(env, path) == lock
    assert len(asked) == 1
    resolve_tiny(env, path, refresh=True)
    assert len(asked) == 2


def test_a_lock_for_another_request_is_made_anew(env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, asked = tmp_path / "t.json", []
    lock = debs.lock_of(debs.package_of(b"deb", "http://a.example/t.deb"), include=("other",))
    monkeypatch.setattr(debian, "_ask_mirror", lambda *_: asked.append(1) or lock)
    resolve_tiny(env, path)
    resolve_tiny(env, path)
    assert len(asked) == 2


def test_a_damaged_lock_file_is_made_anew(env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json"
    lock = debs.lock_of(debs.package_of(b"deb", "http://a.example/t.deb"))
    monkeypatch.setattr(debian, "_ask_mirror", lambda *_: lock)
    path.write_text('{"suite": "bookworm", "packa')
    assert resolve_tiny(env, path) == lock
    assert debian.load(path) == lock


def test_offline_without_a_lock_says_what_to_do(tmp_path: Path) -> None:
    env = Env(Store(tmp_path / "store"), offline=True)
    with pytest.raises(MirrorUnreachable, match=r"expected a lock for bookworm .* \(run once with the network"):
        resolve_tiny(env, tmp_path / "t.json")


@needs_apt
def test_an_unreachable_mirror_is_one_sentence_with_advice(
    env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}/debian"
        monkeypatch.setattr(aptsources, "read_sources", lambda: [Source(uri, "bookworm", ("main",))])
        with pytest.raises(MirrorUnreachable) as caught:
            resolve_tiny(env, tmp_path / "t.json")
    sentence = str(caught.value)
    assert sentence.startswith("Debian bookworm: expected signed package lists from the mirror, got ")
    assert "check the network" in sentence
    assert "E: " not in sentence, "apt's first error, not all it said"
    assert "\n" not in sentence
    assert caught.value.temporary
    assert not (tmp_path / "t.json").exists()


@needs_apt
def test_package_lists_without_debians_signature_are_refused(
    env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suite in ("bookworm", "bookworm-updates"):
        release = tmp_path / "www" / "dists" / suite / "InRelease"
        release.parent.mkdir(parents=True)
        release.write_text(f"Suite: {suite}\nCodename: {suite}\nDate: Sat, 01 Jan 2028 00:00:00 UTC\nSHA256:\n")
    with debs.mirror(tmp_path / "www") as uri:
        monkeypatch.setattr(aptsources, "read_sources", lambda: [Source(uri, "bookworm", ("main",))])
        with pytest.raises(MirrorUnreachable, match="signed package lists"):
            resolve_tiny(env, tmp_path / "t.json")


@needs_apt
@pytest.mark.network
def test_the_real_mirror_gives_a_closure_with_signed_hashes(env: Env, tmp_path: Path) -> None:
    debs.need_mirror()
    path = tmp_path / "t.json"
    request = {"suite": "bookworm", "essential": False, "name": "t", "path": path}
    lock = debian.resolve(env, include=["hostname"], **request)
    names = {package.name for package in lock.packages}
    assert {"hostname", "libc6"} <= names
    assert "bash" not in names
    assert lock.epoch > 1_600_000_000
    found = debian.download(env, lock, ["hostname"])
    assert env.store.verify(found["hostname"].digest)
    assert debian.resolve(Env(env.store, offline=True), include=["hostname"], **request) == lock


@needs_apt
@pytest.mark.network
def test_a_package_the_suite_lacks_is_named(env: Env, tmp_path: Path) -> None:
    debs.need_mirror()
    with pytest.raises(NoSuchPackage, match="no-such-package-anywhere") as caught:
        debian.resolve(
            env,
            suite="bookworm",
            include=["no-such-package-anywhere"],
            essential=False,
            name="t",
            path=tmp_path / "t.json",
        )
    assert isinstance(caught.value, PipelineError)
