from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.fetch.aptsources import Mirrors, NoMirror, choose_mirrors, read_sources, source_lines

GOLDEN = Path(__file__).parent / "golden" / "apt"


def test_deb822_sources_give_archive_and_security_mirror() -> None:
    mirrors = choose_mirrors(read_sources(GOLDEN / "deb822"))
    assert mirrors == Mirrors("http://debian.example/debian", "http://debian.example/debian-security")


def test_one_line_sources_prefer_the_mirror_that_names_debians_keyring() -> None:
    mirrors = choose_mirrors(read_sources(GOLDEN / "oneline"))
    assert mirrors == Mirrors("http://signed.example/debian", "http://security.example/debian-security")


def test_mirror_list_of_cloud_images_gives_its_first_mirror(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "cloud", tmp_path / "apt")
    (tmp_path / "mirrors.list").write_text(
        "# chosen at first boot\nhttp://near.example/debian\nhttp://far.example/debian\n"
    )
    sources = tmp_path / "apt" / "sources.list.d" / "debian.sources"
    sources.write_text(sources.read_text().replace("@LIST@", str(tmp_path / "mirrors.list")))
    assert choose_mirrors(read_sources(tmp_path / "apt")) == Mirrors("http://near.example/debian", None)


def test_repositories_of_others_are_no_debian_mirror() -> None:
    with pytest.raises(NoMirror, match="expected a Debian mirror in /etc/apt"):
        choose_mirrors(read_sources(GOLDEN / "thirdparty"))


def test_another_release_is_looked_up_at_the_same_mirrors() -> None:
    lines = source_lines(Mirrors("http://a.example/debian", "http://s.example/sec"), "trixie", keyring="/k.gpg")
    assert lines.splitlines() == [
        "deb [signed-by=/k.gpg] http://a.example/debian trixie main",
        "deb [signed-by=/k.gpg] http://a.example/debian trixie-updates main",
        "deb [signed-by=/k.gpg] http://s.example/sec trixie-security main",
    ]


def test_unstable_has_no_pockets() -> None:
    assert len(source_lines(Mirrors("http://a.example/debian", "http://s.example/sec"), "sid").splitlines()) == 1
