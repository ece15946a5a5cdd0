"""`zone store`: its commands as a user types them, and what of a store is in use here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from support.stores import built, damage, image

from pipeline.oci import Digest
from pipeline.store import Store
from runtime.host import storeuse
from runtime.host.api.host_pb2 import ZoneInfo
from runtime.host.cli import main


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("ZONEWRIGHT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ZONE_HOST", "lab")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    store = Store()
    image(store, "zones/web", [built(store, "layer")])
    return store


def snapshot(store: Store, name: str = "aa") -> Path:
    directory = store.root / "lab" / "snapshots" / name
    directory.mkdir(parents=True)
    (directory / "memory").write_bytes(b"memory")
    meta = {"format": 1, "sha256": hashlib.sha256(b"memory").hexdigest(), "size_bytes": 6}
    (directory / "meta.json").write_text(json.dumps(meta))
    return directory


def out(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_gc_says_what_it_freed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    orphan = store.put(b"orphan" * 1000)
    del store.__dict__["_lease"]  # as if the process that made it had ended
    assert main(["store", "gc", "--dry-run", "--format", "json"]) == 0
    assert out(capsys)["freed"] == {"blobs": {"objects": 1, "size_bytes": 8192}}
    assert store.path(orphan.digest).exists()
    assert main(["store", "gc"]) == 0
    assert "8.0 KiB freed, 3 blobs kept" in capsys.readouterr().out
    assert not store.path(orphan.digest).exists()


def test_gc_takes_its_limits_from_the_config_and_flags_win(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built(store, "unnamed")
    del store.__dict__["_lease"]
    (tmp_path / "config.toml").write_text("[store]\nkeep_days = 0\n")
    monkeypatch.setenv("ZONEWRIGHT_CONFIG", str(tmp_path / "config.toml"))
    assert main(["store", "gc", "--dry-run", "--keep-days", "1", "--format", "json"]) == 0
    assert out(capsys)["freed"] == {}
    assert main(["store", "gc", "--dry-run", "--format", "json"]) == 0
    assert out(capsys)["freed"].keys() == {"blobs", "results"}


@pytest.mark.parametrize("text", ("-1", "x", "nan", "inf"))
def test_gc_refuses_what_is_no_amount(store: Store, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["store", "gc", f"--keep-days={text}"])
    assert "invalid number value" in capsys.readouterr().err


def test_what_a_process_has_open_is_in_use(store: Store) -> None:
    blob = built(store, "layer")
    assert list(storeuse.open_blobs(store)) == []
    with open(store.path(blob.digest), "rb"):
        assert list(storeuse.open_blobs(store)) == [blob.digest]


def test_what_zones_run_from_is_in_use(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, kernel = Digest.of(b"manifest"), Digest.of(b"kernel")
    running = [ZoneInfo(name="web", manifest=str(manifest), blobs=[str(kernel)]), ZoneInfo(name="old")]
    monkeypatch.setattr(storeuse.actions, "zones", lambda host: running)
    assert storeuse.in_use(store, None) == {manifest, kernel}  # type: ignore[arg-type]


def test_fsck_of_a_sound_store_exits_0(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot(store)
    assert main(["store", "fsck"]) == 0
    assert capsys.readouterr().out == f"store {store.root} is in order\n"


def test_fsck_names_what_is_damaged_exits_1_and_repairs_when_told(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = built(store, "layer")
    damage(store.path(layer.digest), "flipped")
    for arguments, repaired in (([], False), (["--repair"], True)):
        assert main(["store", "fsck", "--format", "json", *arguments]) == 1
        (item,) = out(capsys)
        assert (item["name"], item["repaired"]) == (f"blobs/sha256/{layer.digest.hex}", repaired)
    assert main(["store", "fsck"]) == 0


@pytest.mark.parametrize("name", ("memory", "meta.json"))
@pytest.mark.parametrize("how", ("flipped", "truncated", "extended", "emptied", "deleted", "made a directory"))
def test_fsck_finds_a_damaged_snapshot_and_repair_removes_it(
    store: Store, capsys: pytest.CaptureFixture[str], name: str, how: str
) -> None:
    directory = snapshot(store)
    snapshot(store, "bb")
    damage(directory / name, how)
    assert main(["store", "fsck", "--repair", "--format", "json"]) == 1
    (found,) = [item["name"] for item in out(capsys)]
    # A digit of the digest that flipped: which of the two files is wrong nobody can say.
    assert found == f"lab/snapshots/aa/{name}" or (name, how) == ("meta.json", "flipped")
    assert [path.name for path in directory.parent.iterdir()] == ["bb"]
    assert main(["store", "fsck"]) == 0


def test_du_shows_kinds_and_names(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "du"]) == 0
    text = capsys.readouterr().out
    assert "results" in text and "zones/web" in text and "(no name)" in text
    assert main(["store", "du", "--format", "json"]) == 0
    assert out(capsys).keys() == {"kinds", "names"}


def test_missing_store_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZONEWRIGHT_STORE", str(tmp_path / "none"))
    assert main(["store", "fsck"]) == 1
    assert "expected a store, got none" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
