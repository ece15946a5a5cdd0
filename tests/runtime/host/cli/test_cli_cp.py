"""`zone cp`: docker's rules for directories, streams, and archives that mean harm."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.host.cli.cp import End, end
from runtime.host.cli.untar import BadArchive, unpack


@pytest.fixture(autouse=True)
def root(zoned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of the zone web; the command works in an empty directory beside it."""
    zoned.add("web")
    zoned.trees["web"] = root = tmp_path / "root"
    (root / "etc" / "app").mkdir(parents=True)
    (root / "etc" / "app" / "conf").write_text("x = 1\n")
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (root / "srv").mkdir()
    (root / "link").symlink_to("srv")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return root


def tree(path: Path) -> dict[str, str | None]:
    """Files by their paths, directories as None."""
    return {
        str(found.relative_to(path)): None if found.is_dir() else found.read_text() for found in sorted(path.rglob("*"))
    }


SITE = {"site": None, "site/a": "A", "site/sub": None, "site/sub/b": "B"}


@pytest.fixture
def site() -> None:
    Path("site/sub").mkdir(parents=True)
    Path("site/a").write_text("A")
    Path("site/sub/b").write_text("B")


@pytest.mark.parametrize(
    ("source", "target", "there"),
    [
        ("site", "web:/srv", SITE),
        ("site/", "web:/srv/", SITE),
        ("site/.", "web:/srv", {key.removeprefix("site/"): SITE[key] for key in SITE if key != "site"}),
        ("site", "web:/srv/new", {key.replace("site", "new"): value for key, value in SITE.items()}),
        ("site/.", "web:/srv/new", {key.replace("site", "new"): value for key, value in SITE.items()}),
        ("site/a", "web:/srv", {"a": "A"}),
        ("site/a", "web:/srv/c", {"c": "A"}),
        ("./site/a", "web:/link/c", {"c": "A"}),
        ("site/a", "web:/link", {"a": "A"}),
    ],
)
@pytest.mark.usefixtures("site")
def test_into_a_zone(zone, root: Path, source: str, target: str, there: dict[str, str | None]) -> None:
    assert zone("cp", source, target) == "" and zone.err == ""
    assert tree(root / "srv") == there


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("source", ["..", "../sub/../..", "../../site"])
def test_directory_has_its_own_name_in_the_zone_however_it_was_reached(zone, root: Path, monkeypatch, source) -> None:
    monkeypatch.chdir("site/sub")
    zone("cp", source, "web:/srv")
    assert tree(root / "srv") == (SITE if source != "../sub/../.." else {"here": None, **_below("here", SITE)})


def _below(name: str, files: dict[str, str | None]) -> dict[str, str | None]:
    return {f"{name}/{path}": text for path, text in files.items()}


LONG = "x" * 300  # no file has such a name, and to look for it is an error of its own


@pytest.mark.usefixtures("site")
def test_link_that_leads_to_what_cannot_be_looked_at_is_copied_as_one(zone, root: Path) -> None:
    Path("site/l").symlink_to(LONG)
    zone("cp", "site", "web:/srv")
    assert os.readlink(root / "srv/site/l") == LONG


def test_name_that_no_file_can_have_is_one_sentence(zone) -> None:
    assert zone.sentence("cp", LONG, "web:/srv") == f"{LONG}: file name too long"


@pytest.mark.usefixtures("site")
def test_file_into_a_zone_replaces_one_and_is_roots(zone, root: Path) -> None:
    os.chmod("site/a", 0o640)
    zone("cp", "site/a", "web:/etc/hosts")
    assert (root / "etc/hosts").read_text() == "A" and (root / "etc/hosts").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("site", "web:/etc/hosts", "expected a directory, as site is one, got a file"),
        ("site/a", "web:/nowhere/", "expected a directory that is there"),
        ("site/a", "web:/no/where", "no such directory"),
        ("nothing", "web:/srv", "nothing: no such file or directory"),
        ("site", "other", "expected one end in a zone"),
        ("web:/etc", "web:/srv", "expected one end in a zone, such as web:/etc/hosts, got two"),
        ("web:/nothing", "x", "no such file or directory"),
        ("web:/etc/hosts", "missing/", "missing/: expected a directory that is there"),
        ("web:/etc/hosts", "missing/x", "No such file or directory"),
        ("web:/etc", "site/a", "site/a: expected a directory, as the source is one, got a file"),
    ],
)
@pytest.mark.usefixtures("site")
def test_ends_that_do_not_fit_are_one_sentence(zone, source: str, target: str, said: str) -> None:
    assert said in zone.sentence("cp", source, target)


APP = {"app": None, "app/conf": "x = 1\n"}


@pytest.mark.parametrize(
    ("source", "target", "there"),
    [
        ("web:/etc/app", ".", APP),
        ("web:/etc/app", "new", {"new": None, "new/conf": "x = 1\n"}),
        ("web:/etc/app/.", "new", {"new": None, "new/conf": "x = 1\n"}),
        ("web:/etc/app/.", ".", {"conf": "x = 1\n"}),
        ("web:/etc/app/conf", ".", {"conf": "x = 1\n"}),
        ("web:/etc/app/conf", "other", {"other": "x = 1\n"}),
    ],
)
def test_out_of_a_zone(zone, source: str, target: str, there: dict[str, str | None]) -> None:
    assert zone("cp", source, target) == "" and zone.err == ""
    assert tree(Path()) == there


def test_streams(zone, start, root: Path) -> None:
    out, _ = start("cp", "web:/etc/app", "-").communicate(timeout=120)
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert tar.getnames() == ["app", "app/conf"]
    process = start("cp", "-", "web:/srv")
    assert process.communicate(out, timeout=120) == (b"", b"") and process.returncode == 0
    assert tree(root / "srv") == APP
    process = start("cp", "-", "web:/etc/hosts")
    assert b"expected a directory that is there, for an archive" in process.communicate(out, timeout=120)[1]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("web:/x", End("web", "/x")),
        ("web:", End("web", "/")),
        ("./web:x", End("", "./web:x")),
        ("/a:b", End("", "/a:b")),
        ("-", End("", "-")),
    ],
)
def test_ends(text: str, read: End) -> None:
    assert end(text) == read


def test_directory_that_becomes_the_copy_has_the_sources_mode_and_one_that_was_there_its_own(zone, root: Path) -> None:
    (root / "etc" / "app").chmod(0o700)
    zone("cp", "web:/etc/app", "new")
    Path("there").mkdir(0o755)
    zone("cp", "web:/etc/app/.", "there")
    assert [os.stat(name).st_mode & 0o777 for name in ("new", "there")] == [0o700, 0o755]


# -- archives of a zone that means harm --------------------------------------------------------------------------------


def archive(*members: tuple[str, str, str | bytes]) -> list[bytes]:
    """(name, kind, content or target)"""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, what in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o7755
            info.type = getattr(tarfile, kind)
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
            else:
                info.linkname = what
                tar.addfile(info)
    return [out.getvalue()]


@pytest.mark.parametrize(
    "members",
    [
        [("d", "DIRTYPE", ""), ("d/../../evil", "REGTYPE", b"x")],
        [("d", "DIRTYPE", ""), ("/evil", "REGTYPE", b"x")],
        [("d", "DIRTYPE", ""), ("other", "REGTYPE", b"x")],
        [("d", "DIRTYPE", ""), ("d/l", "SYMTYPE", ".."), ("d/l/evil", "REGTYPE", b"x")],
        [("d", "DIRTYPE", ""), ("d/l", "SYMTYPE", "/"), ("d/l/evil", "DIRTYPE", "")],
        [("d", "DIRTYPE", ""), ("d/h", "LNKTYPE", "../victim")],
        [("d", "DIRTYPE", ""), ("d/h", "LNKTYPE", "d/nothing")],
        [("..", "DIRTYPE", ""), ("../evil", "REGTYPE", b"x")],
    ],
    ids=[
        "dots",
        "absolute",
        "another root",
        "up a link",
        "through a link",
        "hard link out",
        "dangling",
        "dots as root",
    ],
)
def test_nothing_outside_the_target_is_touched(tmp_path: Path, members: list[tuple[str, str, str | bytes]]) -> None:
    target = tmp_path / "box" / "target"
    target.mkdir(parents=True)
    (tmp_path / "box" / "victim").write_text("mine")
    try:
        unpack(archive(*members), target, named="target")
    except BadArchive:
        pass
    outside = {path.name for path in (tmp_path / "box").iterdir()} | {path.name for path in tmp_path.iterdir()}
    assert "evil" not in outside and not Path("/evil").exists()
    assert (tmp_path / "box" / "victim").stat().st_nlink == 1


def test_link_in_the_way_is_replaced_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "target").symlink_to("victim")
    unpack(archive(("f", "REGTYPE", b"theirs")), tmp_path / "target", named="target")
    assert (tmp_path / "victim").read_text() == "mine" and (tmp_path / "target").read_text() == "theirs"


def test_no_file_gets_a_set_uid_bit_and_devices_are_left_out(tmp_path: Path) -> None:
    members = archive(
        ("d", "DIRTYPE", ""), ("d/f", "REGTYPE", b"x"), ("d/zero", "CHRTYPE", ""), ("d/p", "FIFOTYPE", "")
    )
    left_out = unpack(members, tmp_path / "new", named="new")
    assert left_out == ["d/zero (a device, or a pipe)", "d/p (a device, or a pipe)"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["f"]
    assert (tmp_path / "new" / "f").stat().st_mode & 0o7777 == 0o755


def test_links_within_the_tree_are_kept(tmp_path: Path) -> None:
    members = archive(
        ("d", "DIRTYPE", ""), ("d/f", "REGTYPE", b"x"), ("d/h", "LNKTYPE", "d/f"), ("d/s", "SYMTYPE", "f")
    )
    unpack(members, tmp_path / "new", named="new")
    assert (tmp_path / "new/f").stat().st_nlink == 2 and os.readlink(tmp_path / "new/s") == "f"


def header(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


# What comes before a header that never ends, some of it with a size of which there is no data.
BEFORE = {
    "nothing": b"",
    "a file": header("d", tarfile.REGTYPE, 3 << 20) + bytes(3 << 20),
    "a directory": header("d", tarfile.DIRTYPE, 1 << 40),
    "a pipe": header("d", tarfile.FIFOTYPE, 1 << 40),
}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("before", BEFORE)
def test_header_that_never_ends_fills_no_memory(tmp_path: Path, before: str, kind: bytes) -> None:
    def endless() -> Iterator[bytes]:
        yield BEFORE[before] + header("d/f", kind, 1 << 40)
        yield from itertools.repeat(b"x" * (1 << 20), 64)
        pytest.fail("64 MiB of it were read")

    with pytest.raises(BadArchive, match="headers of at most 2 MiB"):
        unpack(endless(), tmp_path / "new", named="new")


def test_sparse_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="expected sparse files in the form of the zone's agent, got f"):
        unpack([header("f", tarfile.GNUTYPE_SPARSE, 512) + bytes(512)], tmp_path / "new", named="new")


@pytest.mark.parametrize("data", [b"", b"no archive at all" * 100, archive(("f", "REGTYPE", b"x" * 2000))[0][:1000]])
def test_what_is_no_archive_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadArchive, match="archive of the zone"):
        unpack([data], tmp_path / "new", named="new")


@pytest.mark.parametrize(
    "headers",
    [{"mtime": "nan"}, {"mtime": "1e30"}, {"linkpath": "a\0b"}],
    ids=["no time", "far future", "NUL in a link"],
)
def test_what_no_file_can_have_is_one_sentence(tmp_path: Path, headers: dict[str, str]) -> None:
    info = tarfile.TarInfo("f")
    info.type = tarfile.SYMTYPE if "linkpath" in headers else tarfile.REGTYPE
    info.pax_headers = headers
    data = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + bytes(2 * tarfile.BLOCKSIZE)
    with pytest.raises(BadArchive, match="archive of the zone: expected what files can have"):
        unpack([data], tmp_path / "new", named="new")
