"""What is kept in memory of an image does not grow with the number of its layers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from support.tars import image_of, tar_of, write_layout
from support.unpacking import tree

from pipeline import fetch, layers, unpack
from pipeline.env import Env
from pipeline.layers import Spools
from pipeline.limits import Limits
from pipeline.pack import pack_image
from pipeline.store import Store
from pipeline.tree import Entry
from pipeline.unpack import stage
from pipeline.unpack.errors import LimitExceeded
from pipeline.unpack.merge import Merge
from pipeline.unpack.tar import ENTRY_BYTES, TarReader


def read(files: dict[str, Any]) -> list[Entry]:
    reader = TarReader(Limits(), subject="layer")
    reader.feed(tar_of(files))
    reader.finish()
    return reader.entries


def layer(number: int, *, of: int = 8) -> dict[str, Any]:
    return {f"layer{number}-{file}": b"" for file in range(of)}


def test_layers_whose_entries_add_up_are_refused_before_all_are_in_memory() -> None:
    merge = Merge(Limits(entries=20))
    merge.add(read(layer(0)), subject="layer")
    merge.add(read(layer(1)), subject="layer")
    with pytest.raises(LimitExceeded, match="the merged image: expected at most 20 entries, got more"):
        merge.add(read(layer(2)), subject="layer")


def test_layers_whose_names_add_up_are_refused_likewise() -> None:
    merge = Merge(Limits(metadata_bytes=500))
    long = {f"{'n' * 100}{file}": "-> " + "t" * 100 for file in range(2)}
    merge.add(read(long), subject="layer")
    with pytest.raises(LimitExceeded, match="the merged image: expected at most 500 bytes of names"):
        merge.add(read({f"again{name}": target for name, target in long.items()}), subject="layer")


def test_layers_that_replace_or_hide_what_was_there_may_be_many() -> None:
    merge = Merge(Limits(entries=20, metadata_bytes=500))
    for number in range(60):
        merge.add(read({"same/": None} | {f"same/{file}": b"" for file in range(8)}), subject="layer")
        if number % 2:
            merge.add(read({".wh.same": b""}), subject="layer")
    assert [entry.path for entry in merge.entries()] == [b""]


def test_readers_of_layers_to_come_keep_no_more_than_their_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [tar_of(layer(number)) for number in range(6)]
    layout = write_layout(tmp_path / "layout", {"t": image_of(*parts)})
    monkeypatch.setattr(layers, "AHEAD_BYTES", 3 * 8 * (ENTRY_BYTES + 20))
    env = Env(Store(tmp_path / "store"))
    with Spools(env.store) as spools:
        sink = unpack.layer_sinks(spools, env.config.limits)
        fetched = fetch.run(fetch.FetchParams(f"oci:{layout}:t"), env, sink=sink)
        assert len(spools._readers) == 3 and spools._reading == {}
        result = unpack.run(unpack.UnpackParams(fetched), env, spools)
        assert set(tree(result, env)) == {name for number in range(6) for name in layer(number)}


def test_image_is_the_same_bytes_whether_readers_are_kept_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tar_of({"d/": None, "d/x": b"x" * 5000, "same": b"1"}), tar_of({"d/y": b"y", "same": "=> d/y"})
    layout = write_layout(tmp_path / "layout", {"t": image_of(one, two, one, two)})
    digests = []
    for number, size_bytes in enumerate((layers.AHEAD_BYTES, 0)):
        monkeypatch.setattr(layers, "AHEAD_BYTES", size_bytes)
        env = Env(Store(tmp_path / f"store{number}"))
        digests.append(pack_image(f"oci:{layout}:t", tmp_path / "out", env=env))
    assert digests[0] == digests[1]


def test_no_more_layers_are_read_ahead_than_there_are_threads_to_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, waiting, most = threading.Lock(), 0, 0
    read_layer, add = stage.read_layer, Merge.add

    def counted(*arguments: Any) -> Any:
        nonlocal waiting, most
        found = read_layer(*arguments)
        with guard:
            waiting += 1
            most = max(most, waiting)
        return found

    def taken(self: Merge, *arguments: Any, **options: Any) -> None:
        nonlocal waiting
        add(self, *arguments, **options)
        with guard:
            waiting -= 1

    monkeypatch.setattr(stage, "read_layer", counted)
    monkeypatch.setattr(Merge, "add", taken)
    layout = write_layout(tmp_path / "layout", {"t": image_of(*(tar_of(layer(number)) for number in range(12)))})
    env = Env(Store(tmp_path / "store"))
    unpack.run(unpack.UnpackParams(fetch.run(fetch.FetchParams(f"oci:{layout}:t"), env)), env)
    assert waiting == 0 and 0 < most <= stage.WORKERS
