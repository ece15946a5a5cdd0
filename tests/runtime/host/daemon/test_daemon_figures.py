"""What a zone says that it measures, however much and whatever it is."""

from __future__ import annotations

import pytest

from runtime.host.api import common_pb2 as pb
from runtime.host.daemon.figures import MAX_LINE_BYTES, MOST, Lines, metrics_of, processes_of
from runtime.host.daemon.model import Metric
from runtime.host.serve.control.messages import metric_tree


def test_only_so_many_figures_pass() -> None:
    many = MOST * 10
    assert len(metrics_of({"metrics": [[f"{number}", number] for number in range(many)]})) == MOST
    assert len(metrics_of({f"{number}": number for number in range(many)})) == MOST
    assert len(processes_of({"processes": [{"pid": number} for number in range(many)]})) == MOST


def test_numbers_that_no_message_holds_are_none() -> None:
    assert metrics_of({"metrics": [["a", 10**400], ["b", float("inf")], ["c", True], ["d", 2]]})[0].name == "d"
    assert processes_of({"processes": [{"pid": 10**400, "uid": 1 << 63}], "x": 1})[0].pid == 0
    assert processes_of({"processes": {"pid": 1}}) == []


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("memory_kib.MemTotal", "KiB"),
        ("cpu.cpu0.user", "seconds"),
        ("containers.main.cpu.usage_usec", "microseconds"),
        ("containers.main.cpu.nr_throttled", "count"),
        ("containers.main.io.202:0.rbytes", "bytes"),
        ("containers.main.io.202:0.rios", "count"),
        ("containers.main.root_bytes.free", "bytes"),
        ("containers.main.memory_pressure.full.avg300", "percent"),
        ("containers.main.memory_pressure.full.total_us", "microseconds"),
        ("pressure.cpu.some.avg10", "percent"),
        ("disks.xvda.busy_ms", "milliseconds"),
        ("disks.xvda.read_bytes", "bytes"),
        ("disks.xvda.reads", "count"),
        ("network.eth0.rx_packets", "count"),
        ("load.15min", "count"),
        ("unix_s", "seconds"),
    ],
)
def test_figures_have_the_unit_that_their_name_says(name: str, unit: str) -> None:
    document: dict[str, object] = {}
    *path, last = name.split(".")
    inner = document
    for part in path:
        inner[part] = inner = {}
    inner[last] = 1
    assert metrics_of(document) == [Metric(name, 1.0, unit)]
    (leaf,) = [node for node in nodes(metric_tree(metrics_of(document), [])) if not node.children]
    assert leaf.format != pb.METRIC_FORMAT_UNKNOWN


def nodes(root: pb.MetricNode) -> list[pb.MetricNode]:
    return [root, *(node for child in root.children for node in nodes(child))]


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_lines_are_documents_in_pieces_of_any_size(step: int) -> None:
    text, lines = b'{"a":1}\n{"b_s":2}\n{"c":', Lines()
    found = [one for at in range(0, len(text), step) for one in lines.feed(text[at : at + step])]
    assert found == [[Metric("a", 1.0, "count")], [Metric("b_s", 2.0, "seconds")]]


@pytest.mark.parametrize("text", [b"nonsense\n", b"[]\n", b"\n", b" " * (MAX_LINE_BYTES + 1)])
def test_lines_that_are_no_documents_or_have_no_end_are_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected|Expecting"):
        Lines().feed(text)


def test_name_of_many_dots_is_no_tree_of_its_own() -> None:
    (node,) = metric_tree(metrics_of({"metrics": [[".".join("abcdefghij"), 1]]}), []).children
    depth = 1
    while node.children:
        (node,) = node.children
        depth += 1
    assert (depth, node.name) == (8, "h.i.j")


def test_figures_of_one_path_are_one_branch() -> None:
    metrics = metrics_of({"memory": {"used_bytes": 1, "total_bytes": 2}, "memory.used_bytes": 3})
    tree = metric_tree(metrics, processes_of({"processes": [{"pid": 1, "command": "init"}, {"pid": 2}]}))
    memory, process = tree.children
    assert [(child.name, child.value.number_value) for child in memory.children] == [
        ("used_bytes", 3),
        ("total_bytes", 2),
    ]
    assert [child.name for child in process.children] == ["1", "2"]
    assert process.children[0].children[0].value.string_value == "init"
