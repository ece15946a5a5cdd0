"""Which directories of the host a zone may have, and that it is given no other than the one that was looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.descriptors import descriptors, opened_since

from runtime.share.directories import ShareUnfit, check_directory, open_directory


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory without symlinks in its path, with one to share, zoned's own, and a file."""
    place = tmp_path.resolve()
    for name in ("shared/below", "run/net"):
        (place / name).mkdir(parents=True)
    (place / "file").touch()
    return place


def test_directory_is_opened_by_a_descriptor_of_itself(place: Path) -> None:
    opened = open_directory(place / "shared", "it", [place / "run"])
    try:
        assert os.path.samestat(os.stat(opened), os.stat(place / "shared"))
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.listdir(opened)  # O_PATH
    finally:
        os.close(opened)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "it: expected a directory of the zone's host, got no such file or directory"),
        ("file", "it: expected a directory of the zone's host, got not a directory"),
        ("run", "it: expected a directory apart from this host's own, got {place}/run, with {place}/run"),
        ("run/net", "it: expected a directory apart from this host's own, got {place}/run/net, with {place}/run"),
        (".", "it: expected a directory apart from this host's own, got {place}, with {place}/run"),
        ("shared/..", "it: expected a directory apart from this host's own, got {place}, with {place}/run"),
        ("/", "it: expected a directory apart from this host's own, got /, with /proc"),
        ("/proc/self", "it: expected a path without symlinks, got one in /proc/self"),
        ("/sys/kernel", "it: expected a directory apart from this host's own, got /sys/kernel, with /sys"),
        ("/dev", "it: expected a directory apart from this host's own, got /dev, with /dev"),
    ],
)
def test_directory_that_no_zone_may_have(place: Path, name: str, said: str) -> None:
    before = descriptors()
    with pytest.raises(ShareUnfit) as refused:
        check_directory(place / name, "it", [place / "run"])
    assert str(refused.value).startswith(said.format(place=place))
    assert not opened_since(before)


def test_symlink_anywhere_in_the_path_leads_nowhere_and_what_it_means_is_said(place: Path) -> None:
    """A zone that has what is above could put one there."""
    (place / "shared/data").symlink_to("/etc")
    with pytest.raises(ShareUnfit) as refused:
        check_directory(place / "shared/data", "it")
    assert str(refused.value) == (
        f"it: expected a path without symlinks, got one in {place}/shared/data "
        "(name it /etc, if that is what it is meant to be)"
    )
    (place / "way").symlink_to("shared")
    with pytest.raises(ShareUnfit, match="a path without symlinks"):
        check_directory(place / "way/below", "it")


def test_place_of_zoneds_own_is_known_by_what_it_is(place: Path) -> None:
    """Its own path may have symlinks."""
    (place / "var").symlink_to("run")
    with pytest.raises(ShareUnfit, match="apart from this host's own"):
        check_directory(place / "run", "it", [place / "var"])
