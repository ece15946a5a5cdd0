"""`zone image`: what is printed, what the exit code is, and what a wrong word is answered with."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from support.tars import Member, image_of, tar_of, write_layout

from pipeline.oci import Digest
from pipeline.store import Store
from runtime.host.cli import main

BASE = {"etc/": None, "etc/motd": b"hello", "bin": b"x" * 3000}


class Zone:
    """The command, with what it wrote."""

    def __init__(self, capsys: pytest.CaptureFixture[str], layout: str) -> None:
        self._capsys, self.layout = capsys, layout
        self.err = ""

    def __call__(self, *words: str, code: int = 0) -> str:
        try:
            done = main(["image", *words])
        except SystemExit as end:
            done = int(end.code or 0)
        captured = self._capsys.readouterr()
        self.err = captured.err
        assert done == code, captured.err
        return captured.out

    def sentence(self, *words: str, code: int = 1) -> str:
        """The one error line of a command that prints nothing else."""
        assert self(*words, code=code) == ""
        lines = [line for line in self.err.splitlines() if not line.startswith("  ")]  # progress is indented
        assert len(lines) == 1 and lines[0].startswith("error: "), self.err
        return lines[0]


@pytest.fixture
def zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Zone:
    monkeypatch.setenv("ZONEWRIGHT_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("ZONEWRIGHT_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.chdir(tmp_path)
    hostile = {b"e\x1b[31m\nd\xff": b"", "rtl\u202e": "-> \x1b[2J"}
    images = {
        "1": image_of(tar_of(BASE)),
        "2": image_of(tar_of(BASE), tar_of({"etc/motd": b"hallo", ".wh.bin": b"", **hostile})),
        "3": image_of(tar_of(BASE), config={"config": {"Env": ["A=\x1b[2J"], "Labels": {"k\x07": "v"}}}),
    }
    return Zone(capsys, f"oci:{write_layout(tmp_path / 'layout', images)}")


def test_pull_prints_the_digest_and_ls_finds_it(zone: Zone) -> None:
    digest = zone("pull", f"{zone.layout}:1").strip()
    assert digest.startswith("sha256:") and "layer 1/1" in zone.err
    (found,) = json.loads(zone("ls", "--format", "json"))
    assert (found["digest"], found["reference"], found["platform"]) == (digest, f"{zone.layout}:1", "linux/amd64")
    assert zone("ls", "-q") == f"images/{zone.layout}:1\n"
    head, row = zone("ls").splitlines()
    assert head.split() == ["NAME", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "CREATED", "PULLED"]
    assert digest[:19] in row and row.endswith("now")


def test_quiet_pull_says_nothing_else(zone: Zone) -> None:
    zone("pull", "-q", f"{zone.layout}:1")
    assert zone.err == ""


def test_ls_of_an_empty_store_is_its_head_or_an_empty_list(zone: Zone) -> None:
    assert len(zone("ls").splitlines()) == 1
    assert json.loads(zone("ls", "--format", "json")) == []
    assert zone("ls", "-q") == ""


def test_inspect_escapes_what_an_image_says(zone: Zone) -> None:
    shown = zone("inspect", f"{zone.layout}:3")
    assert "A=\\x1b[2J" in shown and "k\\x07=v" in shown
    assert "\x1b" not in shown and "\x07" not in shown
    assert json.loads(zone("inspect", f"{zone.layout}:3", "--format", "json"))["config"]["Env"] == ["A=\x1b[2J"]


def test_config_of_odd_shape_is_shown_without_a_traceback(zone: Zone, tmp_path: Path) -> None:
    odd = {"Env": 5, "Entrypoint": "x y", "Cmd": {"a": 1}, "Labels": [1], "ExposedPorts": "80", "User": ["a"]}
    layout = write_layout(tmp_path / "odd", {"1": image_of(tar_of(BASE), config={"config": odd})})
    assert "LAYER" in zone("inspect", f"oci:{layout}:1")
    assert "no difference" not in zone("diff", f"oci:{layout}:1", f"{zone.layout}:1")


def test_files_are_listed_with_hostile_names_escaped(zone: Zone) -> None:
    shown = zone("inspect", f"{zone.layout}:2", "--files")
    assert "/e\\x1b[31m\\nd\\xff\n" in shown and "/rtl\\u202e -> \\x1b[2J\n" in shown
    assert "\x1b" not in shown and "\u202e" not in shown
    paths = [item["path"] for item in json.loads(zone("inspect", f"{zone.layout}:2", "--files", "--format", "json"))]
    assert "etc/motd" in paths


def test_verify_says_what_is_good_and_exits_1_naming_what_is_not(zone: Zone) -> None:
    digest = zone("pull", f"{zone.layout}:1").strip()
    assert zone("verify", digest).count("good") == 3
    assert zone("verify", "-q", digest) == ""
    layer = json.loads(zone("inspect", digest, "--format", "json"))["layers"][0]["digest"]
    path = Store().path(Digest.parse(layer))
    path.chmod(0o644)
    path.write_bytes(b"altered")
    shown = zone("verify", digest, code=1)
    assert "altered" in shown and layer in zone.err


def test_diff_exits_0_either_way_and_1_only_where_asked(zone: Zone) -> None:
    shown = zone("diff", f"{zone.layout}:1", f"{zone.layout}:2")
    assert "- /bin  (file, 0644, 0:0, 2.9 KiB)\n" in shown and "~ /etc/motd  content\n" in shown
    assert "+ /e\\x1b[31m\\nd\\xff" in shown and "\x1b" not in shown
    assert shown.splitlines()[-1] == "2 added, 1 removed, 1 changed"
    assert zone("diff", "-q", "--exit-code", f"{zone.layout}:1", f"{zone.layout}:2", code=1) == (
        "2 added, 1 removed, 1 changed\n"
    )
    assert zone("diff", "--exit-code", f"{zone.layout}:1", f"{zone.layout}:1") == "no difference\n"


def test_diff_as_json(zone: Zone) -> None:
    document = json.loads(zone("diff", f"{zone.layout}:1", f"{zone.layout}:3", "--format", "json"))
    assert (document["equal"], document["added"], document["changes"]) == (False, 0, [])
    assert document["config"]["Env"] == {"from": None, "to": ["A=\x1b[2J"]}
    assert [image["reference"] for image in document["images"]] == [f"{zone.layout}:1", f"{zone.layout}:3"]


def test_rm_takes_the_name_away(zone: Zone) -> None:
    zone("pull", f"{zone.layout}:1")
    assert zone("rm", f"{zone.layout}:1") == f"untagged images/{zone.layout}:1\n"
    assert "none of that name" in zone.sentence("rm", f"{zone.layout}:1")


def test_pack_of_a_stored_name_and_its_file_inspected(zone: Zone, tmp_path: Path) -> None:
    digest = zone("pull", f"{zone.layout}:1").strip()
    packed = zone("pack", "-q", "--offline", digest, "-o", "out.squashfs").strip()
    assert zone.err == ""
    assert json.loads(zone("inspect", "out.squashfs", "--format", "json"))["digest"] == packed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "out", "--format", "zip"), "format 'zip'"),
        (("-o", "out", "--compression", "zstd-99"), "compression 'zstd-99'"),
        (("-o", "out", "--platform", "amd64"), "platform 'amd64'"),
        (("-o", "-"), "stdout is for the digest"),
        (("-o", "."), "got a directory"),
        (("-o", "fifo"), "got a device, a pipe or a socket"),
        (("-o", "missing/out"), "got no directory"),
        (("-o", "out", "--cache", "oci:x"), "cache"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_pack_refuses_before_any_work(zone: Zone, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert said in zone.sentence("pack", f"{zone.layout}:1", *words)
    assert not (tmp_path / "out").exists() and (tmp_path / "fifo").is_fifo()
    assert not any((tmp_path / "store" / "results").glob("*"))


def test_pack_whose_digest_cannot_be_printed_leaves_no_file(
    zone: Zone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open("/dev/full", "w") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", full)
        said = zone.sentence("pack", "-q", f"{zone.layout}:1", "-o", "out")
        full.flush()  # what could not be written is not tried again at the end
    assert "stdout: expected a place for what is printed, got No space left on device" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_pack_into_a_directory_that_cannot_be_synced_leaves_no_file(
    zone: Zone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str
) -> None:
    (tmp_path / "drop").mkdir()
    real = getattr(os, call)

    def refusing(what: Any, *more: Any, **named: Any) -> Any:
        if os.path.realpath(f"/proc/self/fd/{what}" if call == "fsync" else what) == str(tmp_path / "drop"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(what, *more, **named)

    monkeypatch.setattr(os, call, refusing)
    said = zone.sentence("pack", "-q", f"{zone.layout}:1", "-o", "drop/out")
    assert said.startswith("error: drop/out: ") and said.endswith("got Permission denied")
    assert os.listdir(tmp_path / "drop") == []


def test_pack_beside_a_symlink_of_its_temporary_name_makes_nothing_elsewhere(zone: Zone, tmp_path: Path) -> None:
    (tmp_path / ".out.partial").symlink_to(tmp_path / "elsewhere")
    assert "Too many levels of symbolic links" in zone.sentence("pack", "-q", f"{zone.layout}:1", "-o", "out")
    assert not (tmp_path / "elsewhere").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["pipe", "directory", "loop"])
@pytest.mark.parametrize("what", ["index.json", "layer"])
def test_layout_with_something_else_for_a_file_is_one_sentence_about_it(
    zone: Zone, tmp_path: Path, what: str, kind: str
) -> None:
    image = image_of(tar_of(BASE))
    layer = json.loads(image.manifest)["layers"][0]["digest"].replace(":", "/")
    path = write_layout(tmp_path / "odd", {"1": image}) / (what if what == "index.json" else f"blobs/{layer}")
    path.unlink()
    {"pipe": os.mkfifo, "directory": os.mkdir, "loop": lambda name: os.symlink(name, name)}[kind](path)
    said = zone.sentence("pack", "-q", f"oci:{tmp_path / 'odd'}:1", "-o", "out")
    assert said.startswith(f"error: {path}: expected a {'file to read' if kind == 'loop' else 'regular file'}, got")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pul",), "did you mean pull?"),
        (("ls", "--format", "yml"), "did you mean yaml?"),
        (("pack", "x"), "required: -o/--output"),
        (("diff", "a"), "required: B"),
    ],
)
def test_misused_command_is_one_sentence_and_exit_2(zone: Zone, words: tuple[str, ...], said: str) -> None:
    assert said in zone.sentence(*words, code=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pull", "oci:nowhere:x"), "nowhere"),
        (("pull", "docker://127.0.0.1:1/a:1", "--offline"), "offline"),
        (("inspect", "recipe/nope"), "none of that name"),
        (("inspect", "Bad//Ref"), "image reference"),
        (("inspect", "./nothing.squashfs"), "got no such file"),
        (("verify", "sha256:" + "0" * 64), "none"),
        (("diff", "recipe/a", "recipe/b"), "none of that name"),
        (("rm", "nope"), "none of that name"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_what_is_not_there_is_one_sentence(zone: Zone, words: tuple[str, ...], said: str) -> None:
    assert said in zone.sentence(*words)


@pytest.mark.parametrize("name", ["pull", "pack", "ls", "inspect", "verify", "rm", "diff"])
def test_help_of_every_command_shows_examples(zone: Zone, name: str) -> None:
    shown = zone(name, "--help")
    assert f"zone image {name} " in shown.partition("examples:")[2]


def test_name_the_terminal_cannot_write_is_escaped(zone: Zone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "other", {"1": image_of(tar_of({"ü": Member("ü", b"")}))})
    raw = io.BytesIO()
    ascii_only: Any = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    assert main(["image", "inspect", f"oci:{layout}:1", "--files"]) == 0
    assert raw.getvalue().endswith(b"/\\xfc\n")
