from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import debs
from support.tools import require

from pipeline.build import mmdebstrap
from pipeline.env import Env
from pipeline.fetch import debian
from pipeline.store import Store
from pipeline.tool import ToolFailed

DEB = debs.deb_of({"usr/share/tiny": b"tiny"})


def sized(kib: int) -> debian.PackageLock:
    package = debs.package_of(DEB, "file:/none")
    return debs.lock_of(replace(package, stanza=f"{package.stanza}Installed-Size: {kib}\n"))


def test_too_little_disk_is_said_with_the_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=263 << 20))
    with pytest.raises(mmdebstrap.DiskFull, match="expected 264 MiB free, got 263 MiB"):
        mmdebstrap.check_room(tmp_path, sized(100 << 10), ["tiny"])
    mmdebstrap.check_room(tmp_path, sized(99 << 10), ["tiny"])


def need_mmdebstrap() -> None:
    require("mmdebstrap")
    if os.geteuid() != 0:
        pytest.skip("needs root: a tiny package has no user of its own to unshare for")


@pytest.fixture
def made(tmp_path: Path) -> tuple[Env, debian.PackageLock]:
    (tmp_path / "tiny.deb").write_bytes(DEB)
    lock = debs.lock_of(debs.package_of(DEB, f"file:{tmp_path}/tiny.deb"))
    return Env(Store(tmp_path / "store")), lock


@pytest.mark.root
def test_a_root_that_is_only_extracted_holds_the_packages_files(
    made: tuple[Env, debian.PackageLock], tmp_path: Path
) -> None:
    need_mmdebstrap()
    env, lock = made
    out = mmdebstrap.bootstrap(
        env, lock, debian.download(env, lock), variant="extract", include=["tiny"], out_tar=tmp_path / "out.tar"
    )
    assert b"usr/share/tiny" in out.read_bytes()
    assert list(env.store.tmp.iterdir()) == []


@pytest.mark.root
def test_a_failing_hook_is_told_with_the_command_and_leaves_nothing(
    made: tuple[Env, debian.PackageLock], tmp_path: Path
) -> None:
    need_mmdebstrap()
    env, lock = made
    with pytest.raises(ToolFailed, match="mmdebstrap: expected success, got exit code") as caught:
        mmdebstrap.bootstrap(
            env,
            lock,
            debian.download(env, lock),
            variant="extract",
            include=["tiny"],
            hooks=[("setup", "exit 3")],
            out_tar=tmp_path / "out.tar",
        )
    assert "--variant=extract" in caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "tiny.deb"]
    assert list(env.store.tmp.iterdir()) == []


@pytest.mark.root
def test_a_run_told_to_stop_ends_and_leaves_nothing(made: tuple[Env, debian.PackageLock], tmp_path: Path) -> None:
    need_mmdebstrap()
    env, lock = made
    stop = threading.Event()
    started = tmp_path / "started"
    threading.Thread(target=lambda: (wait_for(started), stop.set()), daemon=True).start()
    with pytest.raises(ToolFailed):
        mmdebstrap.bootstrap(
            env,
            lock,
            debian.download(env, lock),
            variant="extract",
            include=["tiny"],
            hooks=[("setup", f"touch {started}; sleep 600")],
            out_tar=tmp_path / "out.tar",
            stop=stop,
        )
    assert not (tmp_path / "out.tar").exists()
    assert list(env.store.tmp.iterdir()) == []


def wait_for(path: Path) -> None:
    pause = threading.Event()
    while not path.exists():
        pause.wait(0.05)
