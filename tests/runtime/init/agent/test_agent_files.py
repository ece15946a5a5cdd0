"""Files into a container and out of it, as tar."""

import os
from pathlib import Path

import pytest
from support.agentcopy import archive_of, copy_in, copy_out
from support.agenthost import AgentError

from runtime.init.agent import tarformat, tarsparse
from runtime.init.agent.tarformat import Entry

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts"),
]


def test_files_go_in_with_their_owners_and_come_out_again(host):
    long = "d/" + "x" * 120 + "/\u00e9\udcff"
    content = os.urandom(300_000)
    archive = archive_of(**{long: content, "d/link": "../nowhere", "d/empty": b""})
    assert copy_in(host, "/tmp", archive) == {"entries": 3, "bytes": 300_000}
    assert host.run(["stat", "-c", "%u %g %a %s %Y", f"/tmp/{long}"]).data[1] == b"33 44 640 300000 1234567890\n"
    tar = copy_out(host, "/tmp/d")
    names = ["d", "d/empty", "d/link", "d/" + "x" * 120, long]
    assert [member.name for member in tar] == names and tar.getmember("d/link").linkname == "../nowhere"
    assert tar.extractfile(long).read() == content and tar.getmember(long).uid == 33


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("../../../../escaped", None),
        ("up/escaped", "/escaped"),
        ("absolute/escaped", "/etc/escaped"),
        ("/rooted/escaped", "/data/rooted/escaped"),
    ],
)
def test_no_name_in_an_archive_leads_out_of_the_container(host, name, seen):
    if seen is None:
        with pytest.raises(AgentError) as caught:
            copy_in(host, "/data", archive_of(**{name: b"x"}))
        assert caught.value.reason == "archive"
    else:
        copy_in(host, "/data", archive_of(**{name: b"x"}))
        assert host.run(["cat", seen]).data[1] == b"x"
    assert not Path("/escaped").exists() and not Path("/etc/escaped").exists()


def test_a_symlink_made_by_an_archive_leads_nowhere_else_either(host):
    archive = archive_of(**{"way": "/../../etc", "way/planted": b"x"})
    copy_in(host, "/data", archive)
    assert host.run(["cat", "/etc/planted"]).data[1] == b"x" and not Path("/etc/planted").exists()


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (b"x" * 1024, "expected the magic ustar"),
        (archive_of(a=b"x" * 600)[:1000], "was it cut off"),
        (b"", "was it cut off"),
    ],
)
def test_a_broken_archive_is_refused_and_leaves_no_half_file(host, archive, words):
    with pytest.raises(AgentError, match=words):
        copy_in(host, "/data", archive)
    assert not [name for name in host.run(["ls", "-a", "/data"]).data[1].split() if b"zone" in name or name == b"a"]


def test_a_full_layer_is_said_and_the_zone_goes_on(host):
    with pytest.raises(AgentError) as caught:
        copy_in(host, "/tmp", archive_of(big=bytes(70 << 20)))
    assert caught.value.reason == "ENOSPC"
    assert host.run(["sh", "-c", "echo x > /tmp/small && cat /tmp/small"]).data[1] == b"x\n"


def test_stat_tells_what_a_path_is(host):
    assert host.call("stat", path="/etc/passwd")["kind"] == "file"
    found = host.call("stat", path="/data/absolute")
    assert (found["kind"], found["link"], found["target"]) == ("symlink", "/etc", "directory")
    assert host.call("stat", path="/data/absolute/")["kind"] == "directory"


@pytest.mark.parametrize(
    "path", ["/data/up/etc/passwd", "/data/absolute/passwd", "/data/up/data/up/data/absolute/passwd"]
)
def test_no_symlink_of_the_container_leads_a_copy_out_of_it(host, path):
    """Up and up, by an absolute path, and again and again: what comes is the container's own file."""
    (member,) = (tar := copy_out(host, path)).getmembers()
    assert member.name == "passwd" and tar.extractfile(member).read() == host.run(["cat", "/etc/passwd"]).data[1]
    assert [member.linkname for member in copy_out(host, "/data/up")] == ["../../.."], "sent as the link it is"
    names = {member.name for member in copy_out(host, "/data/up/")}
    assert {"./data/up", "./looks"} < names and "./usr" not in names


def test_holes_and_attributes_are_those_of_a_real_root(host):
    """A squashfs below an overlay on a tmpfs: what is written there has both, and a small zone takes a large hole."""
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    entry = Entry("sparse", tarformat.REGULAR, xattrs={"security.capability": capability.decode("latin-1")})
    found, size = [(1 << 30, 4096)], 1 << 31
    stored = tarsparse.sparse_map(found, size)
    entry.more, entry.name, entry.size = tarsparse.records("tmp/sparse", size), tarsparse.NAME, len(stored) + 4096
    archive = tarformat.encode(entry) + stored + b"x" * 4096 + tarformat.END
    assert copy_in(host, "/", archive) == {"entries": 1, "bytes": 4096}
    assert host.run(["stat", "-c", "%s", "/tmp/sparse"]).data[1] == b"2147483648\n"
    (member,) = copy_out(host, "/tmp/sparse").getmembers()
    assert (member.name, member.size, member.sparse) == ("sparse", size, [*found, (size, 0)])
    assert member.pax_headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape") == capability
    host.run(["rm", "/tmp/sparse"])
