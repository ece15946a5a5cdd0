"""The host's name servers: what a resolv.conf says, and that a change of it is seen."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.net.engine.dns import socket_address
from runtime.net.resolvers import FileWatch, parse_resolvers, read_resolvers


def test_resolvers_of_a_resolv_conf() -> None:
    text = "# c\nsearch x\nnameserver 10.0.2.3\nnameserver\nnameserver fd00::3 # c\noptions ndots:2\n"
    assert parse_resolvers(text) == ("10.0.2.3", "fd00::3")
    assert parse_resolvers("nameserver 1.1.1.1\n" * 9) == ("1.1.1.1",) * 3
    assert parse_resolvers("") == ("127.0.0.1",)


@pytest.mark.parametrize("name", ["dns.example.org", "1.1.1", "fe80::1%nosuchlink", "0x7f.1", "::1%", "%lo", "é"])
def test_what_is_no_address_never_reaches_the_engine(name: str) -> None:
    assert parse_resolvers(f"nameserver {name}\nnameserver 192.0.2.1\n") in (("192.0.2.1",), ("::1", "192.0.2.1"))


def test_link_local_resolver_is_asked_through_its_interface_by_number() -> None:
    (server,) = parse_resolvers("nameserver fe80::1%lo\n")
    assert server == "fe80::1%1"
    assert socket_address(server) == ("fe80::1", 53, 0, 1)
    assert socket_address("192.0.2.1") == ("192.0.2.1", 53)


@pytest.mark.parametrize("name", ["192.0.2.9%lo", "192.0.2.9%1", f"fe80::1%{1 << 32}"])
def test_resolver_that_no_socket_can_ask_is_left_out(name: str) -> None:
    """The engine would fail at it in an unforeseen way, and not go on to the next."""
    assert parse_resolvers(f"nameserver {name}\nnameserver 192.0.2.1\n") == ("192.0.2.1",)


def test_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert read_resolvers(tmp_path / "none") is None


def write(path: Path) -> None:
    path.write_text("nameserver 192.0.2.2\n")


def replace(path: Path) -> None:
    fresh = path.with_name("fresh")
    fresh.write_text("nameserver 192.0.2.2\n")
    fresh.rename(path)


def link_elsewhere(path: Path) -> None:
    other = path.parent / "other"
    other.mkdir()
    write(other / "resolv.conf")
    os.symlink("other/resolv.conf", path.parent / "fresh")
    (path.parent / "fresh").rename(path)


def write_what_it_links_to(path: Path) -> None:
    write(path.parent / "run" / "resolv.conf")


def replace_what_it_links_to(path: Path) -> None:
    replace(path.parent / "run" / "resolv.conf")


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize(
    "change", [write, replace, link_elsewhere, write_what_it_links_to, replace_what_it_links_to, Path.unlink]
)
def test_change_is_seen_once(tmp_path: Path, change: Callable[[Path], None], linked: bool) -> None:
    path, target = tmp_path / "resolv.conf", tmp_path / "run" / "resolv.conf"
    target.parent.mkdir()
    target.write_text("nameserver 192.0.2.1 # of before\n")
    if linked:
        os.symlink("run/resolv.conf", path)
    elif "links_to" in change.__name__:
        os.link(target, path)
        change = write
    else:
        path.write_text("nameserver 192.0.2.1 # of before\n")
    watch = FileWatch(path)
    try:
        assert select.select([watch.fd], [], [], 0)[0] == []
        change(path)
        assert select.select([watch.fd], [], [], 5)[0] == [watch.fd]
        assert watch.changed()
        assert not watch.changed()
        assert select.select([watch.fd], [], [], 0)[0] == []
        (tmp_path / "neighbour").touch()
        assert not watch.changed()
        if change is link_elsewhere:
            (tmp_path / "other" / "resolv.conf").write_text("nameserver 192.0.2.3 # and again\n")
            assert select.select([watch.fd], [], [], 5)[0] == [watch.fd]
            assert watch.changed()
    finally:
        watch.close()


def test_directory_that_comes_later_is_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    os.symlink("run/resolve/resolv.conf", path)
    watch = FileWatch(path)
    try:
        target = tmp_path / "run" / "resolve" / "resolv.conf"
        for step in (target.parent.parent.mkdir, target.parent.mkdir, lambda: write(target)):
            step()
            assert select.select([watch.fd], [], [], 5)[0] == [watch.fd]
            watch.changed()
        write(target)
        assert read_resolvers(path) == ("192.0.2.2",)
        os.utime(target, (1, 1))
        target.write_text("nameserver 192.0.2.9\n")
        assert watch.changed()
    finally:
        watch.close()


def test_link_that_goes_as_it_is_looked_at_does_not_end_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sets it anew may first take it away."""
    link, file, readlink = tmp_path / "resolv.conf", tmp_path / "made", Path.readlink
    write(file)
    link.symlink_to(file)
    watch = FileWatch(link)
    try:

        def late(path: Path) -> Path:
            path.unlink(missing_ok=True)
            return readlink(path)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "readlink", late)
            assert watch.changed()
        link.symlink_to(file)
        assert select.select([watch.fd], [], [], 10)[0]
        assert watch.changed()
    finally:
        watch.close()
