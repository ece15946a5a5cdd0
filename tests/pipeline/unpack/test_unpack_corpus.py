"""The layer corpus: awkward and hostile layers, each with the tree or the refusal it must lead to.

Numbers are those of the robustness notes, section 1.2; tests/contract/test_layer_cases.py knows that none is missing.
Trees are written as `path -> what`, see `support.unpacking.tree`, and compared in all there is to a name: see
`support.facts`.
"""

from __future__ import annotations

import os
import resource
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from support import facts
from support.sparse import sparse_0_0, sparse_0_1, sparse_1_0, sparse_old
from support.tarreaders import ours_alone
from support.tars import Member, extra, image_of, record, tar_bytes, tar_of, write_layout
from support.unpacking import Tree, unpacked

from pipeline.config import load_config
from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.limits import Limits
from pipeline.pack import pack_image
from pipeline.store import Store
from pipeline.unpack.tar import TarReader

RSS_GROWTH_MAX_KIB = 64 << 10

LOWER = {"etc/": None, "etc/passwd": b"p", "a/": None, "a/x": b"x", "a/y": b"y", "lib": "-> usr/lib", "usr/lib/": None}
LOWER_TREE = {"a": "d", "a/x": "f x", "a/y": "f y", "etc": "d", "etc/passwd": "f p", "lib": "l usr/lib"} | {
    "usr": "d",
    "usr/lib": "d",
}


XATTR = ("SCHILY.xattr.user.x", "")
LONG = ("SCHILY.xattr.user.l", "x" * 65000)
THOUSAND = [(f"SCHILY.xattr.user.{n}", str(n)) for n in range(1000)]
TIMES = {"old": "-1.25", "zero": "0", "far": f"{2**33}.000000005"}
CAPABILITY = "SCHILY.xattr.security.capability"
CAPABILITY_2 = bytes.fromhex("0100000200200000000000000000000000000000")
CAPABILITY_3 = bytes.fromhex("01000003002000000000000000000000000000000a000000")
HOSTS = ("security.selinux", "security.ima", "security.evm", "trusted.overlay.opaque", "system.posix_acl_access")


PIECES = [(1000, 3), (5000, 4), (9000, 0)]
EXPANDED = "\0" * 1000 + "abc" + "\0" * 3997 + "defg" + "\0" * (9000 - 5004)
BODY = Member("file", b"12345")


def signed_sum(member: Member) -> bytes:
    """A tar of one member whose checksum adds signed characters."""
    block = bytearray(tar_bytes([member])[:512])
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(byte - 256 if byte & 0x80 else byte for byte in block)
    return bytes(block) + bytes(1024)


def without(*gone: str) -> Tree:
    """LOWER's tree without these paths."""
    return {path: what for path, what in LOWER_TREE.items() if path not in gone}


ACCEPTED: dict[str, tuple[list[dict[Any, Any] | bytes], dict[str, Any]]] = {
    "case_01: path above the root": ([{"../../etc/x": b"1"}], {"etc": "d", "etc/x": "f 1"}),
    "case_02: absolute path": ([{"/abs/x": b"1"}], {"abs": "d", "abs/x": "f 1"}),
    "case_03: path that leaves and returns": ([{"a/../../b": b"1"}], {"b": "f 1"}),
    "case_04: root entry": ([{"./": None, "./a": b"1"}], {"a": "f 1"}),
    "case_10: invalid UTF-8": ([{b"n\xff\xfe": b"1"}], {"n\xff\xfe": "f 1"}),
    "case_11: trailing slash on a regular file": ([{"d/": b""}], {"d": ("d", {"mode": 0o644})}),
    "case_12: backslash, newline and colon": ([{"a\\b\nc:d": b"1"}], {"a\\b\nc:d": "f 1"}),
    "case_13: names that differ by case": ([{"A": b"1", "a": b"2"}], {"A": "f 1", "a": "f 2"}),
    "case_14: missing parents": ([{"a/b/c": b"1"}], {"a": "d", "a/b": "d", "a/b/c": "f 1"}),
    "case_15: parent is a file of the same layer": ([{"a": b"1", "a/b": b"2"}], {"a": "d", "a/b": "f 2"}),
    "case_16: file over a full directory": ([LOWER, {"a": b"new"}], without("a/x", "a/y") | {"a": "f new"}),
    "case_17: directory over a directory": ([LOWER, {"a/": None}], LOWER_TREE),
    "case_19: parent is an absolute symlink": (
        [{"etc/": None, "localetc": "-> /etc", "localetc/x": b"1"}],
        {"etc": "d", "etc/x": "f 1", "localetc": "l /etc"},
    ),
    "case_20: parent is a symlink that climbs": (
        [{"d": "-> ../../../..", "d/x": b"1"}],
        {"d": "l ../../../..", "x": "f 1"},
    ),
    "case_21: chain of forty symlinks": (
        [{**{f"l{n}": f"-> l{n + 1}" for n in range(40)}, "l40/": None, "l0/x": b"1"}],
        {**{f"l{n}": f"l l{n + 1}" for n in range(40)}, "l40": "d", "l40/x": "f 1"},
    ),
    "case_22: dangling symlink": ([{"a": "-> /no/such"}], {"a": "l /no/such"}),
    "case_23: directory over a symlink": (
        [LOWER, {"lib/": None, "lib/x": b"1"}],
        LOWER_TREE | {"lib": "d", "lib/x": "f 1"},
    ),
    "case_24: file over a symlink": ([LOWER, {"lib": b"1"}], LOWER_TREE | {"lib": "f 1"}),
    "case_19/2: implicit parent through a lower symlink": ([LOWER, {"lib/x": b"1"}], LOWER_TREE | {"usr/lib/x": "f 1"}),
    "case_25: hardlink to an absolute path": (
        [{"etc/passwd": b"p", "h": "=> /etc/passwd"}],
        {"etc": "d"} | {"etc/passwd": "f p", "h": "= etc/passwd"},
    ),
    "case_25/2: hardlink to a climbing path": (
        [{"etc/passwd": b"p", "x/h": "=> ../../etc/passwd"}],
        {"etc": "d", "etc/passwd": "f p", "x": "d", "x/h": "= etc/passwd"},
    ),
    "case_27: hardlink to a symlink": ([{"a": "-> b", "z": "=> a"}], {"a": "l b", "z": "= a"}),
    "case_30: hardlink across layers, first name removed": (
        [LOWER, {"k": "=> a/x"}, {"a/.wh.x": b""}],
        without("a/x") | {"k": "f x"},
    ),
    "case_30/2: hardlink to a name its own layer hides": (
        [LOWER, {"a/.wh.x": b"", "k": "=> a/x"}],
        without("a/x") | {"k": "f x"},
    ),
    "case_30b: hardlink to a name that the working directory has too": (
        [{"x": b"in the image", "h": "=> x", "a/x": b"2"}],
        {"a": "d", "a/x": "f 2", "h": "f in the image", "x": "= h"},
    ),
    "case_30c: hardlink through a symlinked parent": (
        [{"victim/hello": b"1", "d/v": "-> ../victim", "d/v/file": b"2", "h": "=> d/v/hello"}],
        {"d": "d", "d/v": "l ../victim", "h": "f 1", "victim": "d", "victim/file": "f 2", "victim/hello": "= h"},
    ),
    "case_29: header of a hardlink says nothing": (
        [{"a": b"1", "b": Member("", kind=b"1", link="a", mode=0o777, uid=5, gid=6, mtime=7, pax=[XATTR])}],
        {"a": "f 1", "b": "= a"},
    ),
    "case_30d: hardlink to a symlink with another mode": (
        [{"victim": b"1", "l": "-> victim", "h": Member("", kind=b"1", link="l", mode=0o4777)}],
        {"h": "l victim", "l": "= h", "victim": "f 1"},
    ),
    "case_35: whiteout of a file": ([LOWER, {"a/.wh.x": b""}], without("a/x")),
    "case_35/2: whiteout of a full directory": ([LOWER, {".wh.a": b""}], without("a", "a/x", "a/y")),
    "case_36: whiteout of nothing": ([LOWER, {"a/.wh.none": b"", "none/.wh.x": b""}], LOWER_TREE),
    "case_37: opaque directory": ([LOWER, {"a/": None, "a/.wh..wh..opq": b""}], without("a/x", "a/y")),
    "case_38/1: opaque mark before entries": (
        [LOWER, {"a/.wh..wh..opq": b"", "a/n": b"1", "a/m": b"2"}],
        without("a/x", "a/y") | {"a/n": "f 1", "a/m": "f 2"},
    ),
    "case_38/2: opaque mark between entries": (
        [LOWER, {"a/n": b"1", "a/.wh..wh..opq": b"", "a/m": b"2"}],
        without("a/x", "a/y") | {"a/n": "f 1", "a/m": "f 2"},
    ),
    "case_38/3: opaque mark after entries": (
        [LOWER, {"a/n": b"1", "a/m": b"2", "a/.wh..wh..opq": b""}],
        without("a/x", "a/y") | {"a/n": "f 1", "a/m": "f 2"},
    ),
    "case_39: opaque root": ([LOWER, {".wh..wh..opq": b"", "n": b"1"}], {"n": "f 1"}),
    "case_40: opaque mark behind a symlink": (
        [LOWER | {"usr/lib/l": b"1"}, {"lib/.wh..wh..opq": b""}],
        LOWER_TREE,
    ),
    "case_40/2: opaque mark in a directory that replaces a symlink spares its target": (
        [LOWER | {"usr/lib/l": b"1"}, {"lib/": None, "lib/.wh..wh..opq": b"", "lib/n": b"2"}],
        LOWER_TREE | {"usr/lib/l": "f 1", "lib": "d", "lib/n": "f 2"},
    ),
    "case_41: opaque mark on a file and on nothing": (
        [LOWER, {"etc/passwd/.wh..wh..opq": b"", "none/.wh..wh..opq": b""}],
        LOWER_TREE,
    ),
    "case_42/1: whiteout, then the name": (
        [LOWER, {".wh.a": b"", "a/": None, "a/n": b"1"}],
        without("a/x", "a/y") | {"a/n": "f 1"},
    ),
    "case_42/2: the name, then its whiteout": (
        [LOWER, {"a/": None, "a/n": b"1", ".wh.a": b""}],
        without("a/x", "a/y") | {"a/n": "f 1"},
    ),
    "case_43/1: whiteout with data": ([LOWER, {"a/.wh.x": b"data"}], without("a/x")),
    "case_43/2: whiteout that is a directory": ([LOWER, {"a/.wh.x/": None}], without("a/x")),
    "case_43/3: whiteout that is a symlink": ([LOWER, {"a/.wh.x": "-> y"}], without("a/x")),
    "case_43/4: whiteout that is a hardlink": ([LOWER, {"a/.wh.x": "=> a/y"}], without("a/x")),
    "case_44: whiteout prefix in a directory part": ([{".wh.etc/f": b"1"}], {".wh.etc": "d", ".wh.etc/f": "f 1"}),
    "case_45: leftovers of AUFS": (
        [{".wh..wh.plnk/1.2": b"", ".wh..wh.aufs": b"", ".wh..wh.orph/": None, "a": b"1"}],
        {"a": "f 1"},
    ),
    "case_46: whiteout of .opq": ([{".opq": b"1", "b": b"2"}, {".wh..opq": b""}], {"b": "f 2"}),
    "case_47: whiteout by a roundabout path": ([LOWER, {"dne/../.wh.etc": b""}], without("etc", "etc/passwd")),
    "case_48: whiteout of a parent, children again": (
        [LOWER, {".wh.a": b"", "a/z": b"1"}],
        without("a/x", "a/y") | {"a/z": "f 1"},
    ),
    "case_49: whiteouts in the only layer": ([{".wh.a": b"", "b/.wh..wh..opq": b"", "c": b"1"}], {"c": "f 1"}),
    "case_50: device 0:0 is a device": ([{"d": Member("", kind=b"3")}], {"d": "c 0:0"}),
    "case_51: devices": (
        [{"c": Member("", kind=b"3", device=(1, 3)), "b": Member("", kind=b"4", device=(4095, 1048575))}],
        {"c": "c 1:3", "b": "b 4095:1048575"},
    ),
    "case_52: fifo, and a contiguous file": (
        [{"p": Member("", kind=b"6"), "s": Member("", b"1", kind=b"7")}],
        {"p": "p", "s": "f 1"},
    ),
    "case_53: special bits are kept, higher ones are not": (
        [{"a": Member("", mode=0o107755), "d/": Member("", kind=b"5", mode=0o1777)}],
        {"a": ("f ", {"mode": 0o7755}), "d": ("d", {"mode": 0o1777})},
    ),
    "case_54: owners up to 2**32 - 2": (
        [{str(uid): Member("", uid=uid, gid=uid) for uid in (0, 65534, 2**31 - 1, 2**32 - 2)}],
        {str(uid): ("f ", {"uid": uid, "gid": uid}) for uid in (0, 65534, 2**31 - 1, 2**32 - 2)},
    ),
    "case_55: any time, to the nanosecond": (
        [{name: Member("", pax=[("mtime", text)]) for name, text in TIMES.items()}],
        {"old": ("f ", {"mtime_ns": -1_250_000_000}), "zero": "f ", "far": ("f ", {"mtime_ns": 2**33 * 10**9 + 5})},
    ),
    "case_56: capabilities byte for byte": (
        [{"v2": Member("", pax=[(CAPABILITY, CAPABILITY_2)]), "v3": Member("", pax=[(CAPABILITY, CAPABILITY_3)])}],
        {
            "v2": ("f ", {"xattrs": ((b"security.capability", CAPABILITY_2),)}),
            "v3": ("f ", {"xattrs": ((b"security.capability", CAPABILITY_3),)}),
        },
    ),
    "case_57: xattrs of the building host are dropped, those of users kept": (
        [{"a": Member("", pax=[(f"SCHILY.xattr.{name}", "1") for name in (*HOSTS, "user.mine", "trusted.mine")])}],
        {"a": ("f ", {"xattrs": ((b"trusted.mine", b"1"), (b"user.mine", b"1"))})},
    ),
    "case_58: empty, long, and a thousand xattrs": (
        [{"e": Member("", pax=[XATTR]), "l": Member("", pax=[LONG]), "m": Member("", pax=THOUSAND)}],
        {
            "e": ("f ", {"xattrs": ((b"user.x", b""),)}),
            "l": ("f ", {"xattrs": ((b"user.l", b"x" * 65000),)}),
            "m": ("f ", {"xattrs": tuple(sorted((b"user.%d" % n, b"%d" % n) for n in range(1000)))}),
        },
    ),
    "case_59/1: an xattr's name ends at the first =": (
        [{"a": Member("", pax=[("SCHILY.xattr.user.a=b", "c=d\n"), ("SCHILY.xattr.user.n\nl", "1")])}],
        {"a": ("f ", {"xattrs": ((b"user.a", b"b=c=d\n"), (b"user.n\nl", b"1"))})},
    ),
    "case_59/2: libarchive's form of an xattr is not read": (
        [{"a": Member("", pax=[("LIBARCHIVE.xattr.user.x", "b3RoZXI"), XATTR, ("LIBARCHIVE.xattr.user.y", "eQ")])}],
        {"a": ("f ", {"xattrs": ((b"user.x", b""),)})},
    ),
    "case_60: names of owners are ignored": (
        [
            {
                "a": Member(
                    "", uid=7, pax=[("uname", "root"), ("gname", "root")], raw={"uname": b"root", "gname": b"daemon"}
                )
            }
        ],
        {"a": ("f ", {"uid": 7})},
    ),
    "case_66: comment in a global header": (
        [tar_bytes([extra(b"g", record("comment", "0" * 40)), Member("b", b"1")])],
        {"b": "f 1"},
    ),
    "case_68/1: pax size over a size of zero": (
        [{"a": Member("", b"x" * 600, pax=[("size", "600")], raw={"size": b"0" * 11 + b"\0"}), "b": b"y"}],
        {"a": "f " + "x" * 600, "b": "f y"},
    ),
    "case_68/2: pax size over another size": (
        [{"a": Member("", b"x" * 600, pax=[("size", "600")], raw={"size": b"0" * 8 + b"777\0"}), "b": b"y"}],
        {"a": "f " + "x" * 600, "b": "f y"},
    ),
    "case_71/1: no end mark": ([tar_bytes([Member("a", b"1")], end=b"")], {"a": "f 1"}),
    "case_71/2: half an end mark": ([tar_bytes([Member("a", b"1")], end=bytes(512))], {"a": "f 1"}),
    "case_75: checksum of signed characters": ([signed_sum(Member(b"n\xe9"))], {"n\xe9": "f "}),
    "case_76/1: sparse, format 0.0": ([sparse_0_0(PIECES, 9000, b"abcdefg")], {"s": f"f {EXPANDED}"}),
    "case_76/2: sparse, format 0.1": ([sparse_0_1(PIECES, 9000, b"abcdefg")], {"s": f"f {EXPANDED}"}),
    "case_76/3: sparse, format 1.0": (
        [sparse_1_0(pieces=PIECES, real=9000, data=b"abcdefg")],
        {"s": f"f {EXPANDED}"},
    ),
    "case_76/4: sparse, old GNU format": ([sparse_old(PIECES, 9000, b"abcdefg")], {"s": f"f {EXPANDED}"}),
    "case_86: the same layer twice": ([LOWER, LOWER], LOWER_TREE),
    "case_87: empty layer": ([LOWER, {}], LOWER_TREE),
    "case_87/2: nothing but empty layers": ([{}, {}], {}),
    "name given twice in a layer": ([{"a": b"1", "./a": b"2"}], {"a": "f 2"}),
    "newer whiteout below an older opaque directory": (
        [LOWER, {"a/": None, "a/.wh..wh..opq": b"", "a/s/t": b"1", "a/s/u": b"2"}, {"a/s/.wh.t": b""}],
        without("a/x", "a/y") | {"a/s": "d", "a/s/u": "f 2"},
    ),
}


ABOVE = "path above the root, held at the root"
NOTHING = "whiteout of nothing"
MARK = "whiteout that is no empty file"
WARNINGS = {
    "case_01: path above the root": {ABOVE: 2},
    "case_03: path that leaves and returns": {ABOVE: 1},
    "case_25/2: hardlink to a climbing path": {ABOVE: 2},
    "case_36: whiteout of nothing": {NOTHING: 2},
    "case_41: opaque mark on a file and on nothing": {NOTHING: 2},
    "case_43/1: whiteout with data": {MARK: 1},
    "case_43/2: whiteout that is a directory": {MARK: 1},
    "case_43/3: whiteout that is a symlink": {MARK: 1},
    "case_43/4: whiteout that is a hardlink": {MARK: 1},
    "case_45: leftovers of AUFS": {"leftover of AUFS skipped": 3},
    "case_49: whiteouts in the only layer": {NOTHING: 2},
    "case_55: any time, to the nanosecond": {"time outside 1970 to 2106, clamped in images": 2},
    "case_57: xattrs of the building host are dropped, those of users kept": {
        f"xattr dropped: {name}": 1 for name in HOSTS
    },
    "case_59/2: libarchive's form of an xattr is not read": {"xattr in libarchive's form alone dropped: user.y": 1},
    "name given twice in a layer": {"name given twice in a layer, last one taken": 1},
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_layers_merge_to(name: str, tmp_path: Path) -> None:
    layers, expected = ACCEPTED[name]
    tars = [layer if isinstance(layer, bytes) else tar_of(layer) for layer in layers]
    result, env = unpacked(tmp_path, tars)
    assert facts.of_tree(result, env) == facts.expected(expected)
    assert result.warnings == WARNINGS.get(name, {})


@pytest.mark.parametrize("name", ACCEPTED)
def test_no_name_in_an_accepted_layer_is_ours_alone(name: str) -> None:
    """Each is listed by tarfile, GNU tar or libarchive too: a name only we see would be a way past other readers."""
    for layer in ACCEPTED[name][0]:
        tar = layer if isinstance(layer, bytes) else tar_of(layer)
        reader = TarReader(Limits(), subject=name)
        reader.feed(tar)
        assert ours_alone(tar, [entry.path for entry in reader.entries]) == set()


LINK_SIZE = {"size": b"00000000005\0"}


def pax(*records: tuple[str | bytes, str | bytes], **member: Any) -> bytes:
    return tar_bytes([Member("file", pax=records, **member)])


def raw_pax(data: bytes, kind: bytes = b"x") -> bytes:
    return tar_bytes([extra(kind, data), Member("file", b"1")])


REFUSED: dict[str, tuple[bytes, str]] = {
    "case_05: root as a symlink": (tar_of({".": "-> /etc"}), "a directory as the root"),
    "case_05/2: root as a symlink, written /.": (tar_of({"/.": "-> /etc"}), "a directory as the root"),
    "case_06/1: root as a file": (tar_of({".": b"1"}), "a directory as the root"),
    "case_06/2: root as a device": (tar_of({"./": Member("", kind=b"3")}), "a directory as the root"),
    "case_06/3: root as a hardlink": (tar_of({"a": b"1", ".": "=> a"}), "a directory as the root"),
    "case_06/4: root by way of ..": (tar_of({"a/..": b"1"}), "a directory as the root"),
    "case_07: empty name": (tar_of({"": b"1"}), "expected a name"),
    "case_08/1: zero byte in a name": (tar_of({b"a\0b": b"1"}), "expected a name, got one with a zero byte"),
    "case_08/2: zero byte in a pax path": (pax(("path", b"a\0b")), "a PAX path that is a name"),
    "case_08/3: zero byte in a GNU name": (tar_bytes([extra(b"L", b"a\0b\0"), BODY]), "ended by a zero byte"),
    "case_08/4: zero byte in a link's target": (tar_of({"a": "-> b\0c"}), "a link target of 1 to 4095 bytes"),
    "case_09/1: part of 256 bytes": (tar_of({"a/" + "b" * 256: b"1"}), "names of at most 255 bytes"),
    "case_09/2: path of 4,100 bytes": (tar_of({"/".join(["a" * 200] * 21): b"1"}), "paths of at most 4096 bytes"),
    "case_18: depth of 1,000": (tar_of({"/".join("a" * 1000): b"1"}), "paths of at most 512 parts"),
    "case_21: loop as a parent": (tar_of({"a": "-> b", "b": "-> a", "a/x": b"1"}), "at most 40 symlinks"),
    "case_21/2: chain of 41 as a parent": (
        tar_of({**{f"l{n}": f"-> l{n + 1}" for n in range(41)}, "l41/": None, "l0/x": b"1"}),
        "at most 40 symlinks",
    ),
    "case_22/1: empty symlink target": (tar_of({"a": "-> "}), "a link target of 1 to 4095 bytes"),
    "case_22/2: symlink target of 4,096 bytes": (tar_of({"a": "-> " + "t" * 4096}), "a link target of 1 to 4095 bytes"),
    "case_26/1: hardlink to nothing": (tar_of({"a": "=> none"}), "a hardlink to an earlier entry"),
    "case_30b: hardlink to a name that only the working directory has": (tar_of({"h": "=> x"}), "a hardlink to an"),
    "case_26/2: hardlink to a later entry": (tar_of({"a": "=> b", "b": b"1"}), "a hardlink to an earlier entry"),
    "case_28/1: hardlink to a directory": (tar_of({"d/": None, "a": "=> d"}), "something else than a directory"),
    "case_28/2: hardlink to itself": (tar_of({"a": b"1", "./a": "=> a"}), "a hardlink to another name"),
    "case_31: whiteout of nothing named": (tar_of({".wh.": b""}), "a whiteout of a name"),
    "case_32: whiteout of .": (tar_of({".wh..": b""}), "a whiteout of a name"),
    "case_33: whiteout of ..": (tar_of({".wh...": b""}), "a whiteout of a name"),
    "case_34: whiteout of .. below": (tar_of({"a/.wh...": b""}), "a whiteout of a name"),
    "case_51: device number too large": (tar_of({"d": Member("", kind=b"3", device=(4096, 0))}), "a device up to"),
    "case_52: unknown type": (tar_of({"a": Member("", kind=b"Z")}), "a type flag"),
    "case_54/1: uid 2**32 - 1": (tar_of({"a": Member("", uid=2**32 - 1)}), "a uid from 0 to"),
    "case_54/2: gid 2**32": (tar_of({"a": Member("", gid=2**32)}), "a gid from 0 to"),
    "case_54/3: negative uid": (tar_of({"a": Member("", uid=-1)}), "a uid from 0 to"),
    "case_58/1: xattr of 64 KiB": (pax(("SCHILY.xattr.user.a", b"x" * 65536)), "xattrs of at most 65536 bytes"),
    "case_58/2: 9,000 xattrs": (pax(*((f"SCHILY.xattr.user.{n}", "") for n in range(9000))), "xattrs of at most 65536"),
    "case_58/3: xattr without a name": (pax(("SCHILY.xattr.user.", b"x")), "an xattr name of at most 255 bytes"),
    "case_58/4: xattr name of 256 bytes": (
        pax(("SCHILY.xattr.user." + "n" * 251, b"x")),
        "an xattr name of at most 255",
    ),
    "case_61/1: symlink with a size": (
        tar_bytes([Member("a", kind=b"2", link="b", raw=LINK_SIZE), BODY]),
        "no data with an entry that is not a regular file",
    ),
    "case_61/2: directory with a size": (tar_bytes([Member("a/", b"x", kind=b"5")]), "no data with an entry"),
    "case_61/3: device with a size": (tar_bytes([Member("a", b"x", kind=b"3")]), "no data with an entry"),
    "case_61/4: hardlink with a size": (
        tar_bytes([BODY, Member("a", b"x", kind=b"1", link="file")]),
        "no data with an entry",
    ),
    "case_61/5: regular file with a slash and a size": (tar_bytes([Member("a/", b"x")]), "no data with an entry"),
    "case_62: lone zero block, then entries": (tar_bytes([bytes(512), BODY]), "a second zero block"),
    "case_63/1: empty pax path": (pax(("path", "")), "a PAX path that is a name"),
    "case_63/2: pax path with a zero byte": (pax(("path", b"a\0b")), "a PAX path that is a name"),
    "case_63/3: empty pax linkpath": (pax(("linkpath", ""), kind=b"2"), "a PAX linkpath that is a name"),
    "case_64/1: negative base-256 size": (
        tar_bytes([Member("a", raw={"size": b"\xff" * 12})]),
        "a size of 0 or more",
    ),
    "case_64/2: huge base-256 size": (
        tar_bytes([Member("a", raw={"size": b"\x80\xff" + bytes(10)})]),
        "at most 63 bits",
    ),
    "case_65/1: pax uid -1": (pax(("uid", "-1")), "a uid from 0 to"),
    "case_65/2: pax uid 2**32": (pax(("uid", str(2**32))), "a uid from 0 to"),
    "case_65/3: pax gid of letters": (pax(("gid", "root")), "a decimal gid"),
    "case_66/1: global path": (raw_pax(record("path", "x"), b"g"), "no entry fields in a global PAX header"),
    "case_66/2: global size": (raw_pax(record("size", "5"), b"g"), "no entry fields in a global PAX header"),
    "case_66/3: global linkpath": (raw_pax(record("linkpath", "x"), b"g"), "no entry fields in a global PAX header"),
    "case_66/4: global mtime": (raw_pax(record("mtime", "5"), b"g"), "no entry fields in a global PAX header"),
    "case_67/1: pax length too long": (raw_pax(b"99 path=x\n"), "as long as it says"),
    "case_67/2: pax length too short": (raw_pax(b"5 path=x\n"), "as long as it says"),
    "case_67/3: pax record without a newline": (raw_pax(b"9 path=xx"), "as long as it says"),
    "case_67/4: pax record without =": (raw_pax(b"7 path\n"), "KEY=VALUE"),
    "case_69: data after the end": (tar_bytes([BODY], end=bytes(1024) + b"x"), "only zeros after the end"),
    "case_70/1: body cut off": (tar_bytes([Member("a", b"x" * 2000)], end=b"")[:-600], "its end in the middle"),
    "case_70/2: header cut off": (tar_bytes([BODY], end=b"")[:300], "its end in the middle"),
    "case_70/3: padding cut off": (tar_bytes([BODY], end=b"")[:-1], "its end in the middle"),
    "case_70/4: extended header and no entry": (
        extra(b"x", record("path", "x")) + bytes(1024),
        "an entry after its extended header",
    ),
    "case_72/1: pax, then a GNU name": (
        tar_bytes([extra(b"x", record("path", "x")), extra(b"L", b"long\0"), BODY]),
        "several that compete",
    ),
    "case_72/2: GNU name, then pax": (
        tar_bytes([extra(b"L", b"long\0"), extra(b"x", record("path", "x")), BODY]),
        "several that compete",
    ),
    "case_72/3: two GNU names": (
        tar_bytes([extra(b"L", b"one\0"), extra(b"L", b"two\0"), BODY]),
        "several that compete",
    ),
    "case_73/1: pax header over 1 MiB": (
        raw_pax(record("comment", "x" * (1 << 20))),
        "an extended header of 1 to 1048576 bytes",
    ),
    "case_73/2: 20,000 pax records": (raw_pax(record("a", "b") * 20_000), "at most 10000 PAX records"),
    "case_73/3: pax length with a zero": (raw_pax(b"010 path=x\n"), "begins with its length"),
    "case_73/4: pax length with a sign": (raw_pax(b"+9 path=x\n"), "begins with its length"),
    "case_73/5: pax length with a blank": (raw_pax(b" 9 path=x\n"), "begins with its length"),
    "case_74/1: GNU name over 1 MiB": (
        tar_bytes([extra(b"L", b"n" * (1 << 20) + b"\0"), BODY]),
        "an extended header of 1 to",
    ),
    "case_74/2: GNU name without its zero byte": (tar_bytes([extra(b"L", b"name"), BODY]), "ended by a zero byte"),
    "case_74/3: GNU name with more behind its zero byte": (
        tar_bytes([extra(b"L", b"a\0b\0"), BODY]),
        "ended by a zero byte",
    ),
    "case_76/1: sparse pieces that overlap": (sparse_0_1([(0, 5), (3, 2)], 100, b"abcdefg"), "sparse pieces in order"),
    "case_76/2: sparse pieces out of order": (sparse_old([(10, 5), (5, 2)], 100, b"abcdefg"), "sparse pieces in order"),
    "case_76/3: sparse piece of negative length": (
        sparse_0_0([(0, 5), (9, -2)], 100, b"abc"),
        "sparse pieces in order and apart",
    ),
    "case_76/4: sparse file of 2**63 bytes": (sparse_0_1([(0, 1)], 1 << 63, b"a"), "at most 63 bits"),
    "case_76/5: sparse file over the limit of a file": (sparse_0_1([], 1 << 62, b""), "a file of at most 68719476736"),
    "case_76/6: sparse piece behind the end": (sparse_0_1([(9, 5)], 10, b"abcde"), "sparse pieces inside the file"),
    "case_75: wrong checksum": (tar_bytes([Member("a", raw={"checksum": b"000123\0 "})]), "header checksum"),
    "octal field with letters": (tar_bytes([Member("a", raw={"mode": b"rwxr-x\0"})]), "an octal mode"),
    "no bytes": (b"", "no bytes at all"),
}


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree outside the store, the working directory of the test, that no layer may touch or read."""
    place = tmp_path / "canary"
    for name in ("etc/passwd", "a/x", "victim", "none"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("canary")
    monkeypatch.chdir(place / "a")
    return place


@pytest.mark.parametrize("name", REFUSED)
def test_layer_is_refused(name: str, tmp_path: Path, canary: Path) -> None:
    """A typed error; no output, no result, nothing in the store's tmp; nothing touched outside; little memory."""
    tar, expected = REFUSED[name]
    before, memory_kib = facts.of_directory(canary), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    layout = write_layout(tmp_path / "layout", {"t": image_of(tar, compression="none")})
    env, out = Env(Store(tmp_path / "store")), tmp_path / "out" / "image"
    out.parent.mkdir()
    with pytest.raises(PipelineError, match=expected) as caught:
        pack_image(f"oci:{layout}:t", out, env=env)
    assert str(caught.value).startswith("layer sha256:")
    assert os.listdir(out.parent) == os.listdir(env.store.tmp) == []
    assert b'"tree":' not in b"".join(path.read_bytes() for path in env.store.results.iterdir())
    assert facts.of_directory(canary) == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_kib < RSS_GROWTH_MAX_KIB


STRICT = {
    "case_01: path above the root": [{"../../etc/x": b"1"}],
    "case_40: opaque mark behind a symlink": [LOWER, {"lib/.wh..wh..opq": b""}],
    "case_43: whiteout with data": [LOWER, {"a/.wh.x": b"data"}],
    "name given twice": [{"a": b"1", "./a": b"2"}],
}


@pytest.mark.parametrize("name", STRICT)
def test_strict_refuses_what_is_otherwise_put_right(name: str, tmp_path: Path) -> None:
    layers = [tar_of(layer) for layer in STRICT[name]]
    assert unpacked(tmp_path / "lenient", layers)[0].entries > 0
    with pytest.raises(PipelineError):
        unpacked(tmp_path / "strict", layers, strict=True)


LIMITS = {
    "entries": (Limits(entries=10), tar_of({f"f{n}": b"" for n in range(11)}), "entries"),
    "entries made by missing parents": (Limits(entries=10), tar_of({"/".join("abcdefghijkl"): b""}), "entries"),
    "size of a file": (Limits(file_bytes=100), tar_of({"a": b"x" * 101}), "file_bytes"),
    "size of a layer": (Limits(layer_bytes=2000), tar_of({"a": b"x" * 1000}), "layer_bytes"),
    "size of the image": (Limits(image_bytes=1000), tar_of({"a": b"x" * 600, "b": b"x" * 600}), "image_bytes"),
    "inflated size": (
        Limits(ratio=1, ratio_free_bytes=1000),
        tar_of({"a": bytes(90_000)}),
        "ratio or ratio_free_bytes",
    ),
    "layers": (Limits(layers=0), tar_of({}), "layers"),
    "length of a name": (Limits(name_bytes=5), tar_of({"abcdef": b""}), "name_bytes"),
    "length of a path": (Limits(path_bytes=9), tar_of({"abcd/efghi": b""}), "path_bytes"),
    "depth of a path": (Limits(depth=2), tar_of({"a/b/c": b""}), "depth"),
    "depth through a symlink": (Limits(depth=3), tar_of({"l": "-> a/b/c", "l/d": b"", "l/e/f": b""}), "depth"),
    "pieces of a sparse file": (Limits(extents=1), sparse_0_1([(0, 1), (9, 1)], 10, b"12"), "extents"),
    "names and xattrs": (Limits(metadata_bytes=300), tar_of({f"{n}" * 100: b"" for n in range(4)}), "metadata_bytes"),
    "maps of sparse files": (
        Limits(metadata_bytes=300),
        sparse_0_1([(0, 1), (3, 1), (9, 1)], 10, b"123"),
        "metadata_bytes",
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_kept_and_named(name: str, tmp_path: Path) -> None:
    """From the config file to the error that names the key which raises the limit."""
    limits, tar, key = LIMITS[name]
    (tmp_path / "config.toml").write_text(
        "[limits]\n" + "".join(f"{item.name} = {getattr(limits, item.name)}\n" for item in fields(limits))
    )
    layout = write_layout(tmp_path / "layout", {"t": image_of(tar)})
    strict = Env(Store(tmp_path / "store"), config=load_config(tmp_path / "config.toml"))
    with pytest.raises(PipelineError, match="at most") as caught:
        pack_image(f"oci:{layout}:t", tmp_path / "out", env=strict)
    assert caught.value.hint == f"{key} under [limits] of the config file raises the limit"
    pack_image(f"oci:{layout}:t", tmp_path / "out", env=Env(Store(tmp_path / "store")))
