"""The nodes of a share, and what a guest may write into its half of them."""

from __future__ import annotations

import pytest

from runtime.boot import ninepfs
from runtime.boot.model import Domid, EvtchnPort, GrantRef, Node
from runtime.boot.ninepfs import Offer

FRONT = "/local/domain/7/device/9pfs/0"
WHOLE = {"version": "1", "num-rings": "2", "ring-ref0": "1", "event-channel-0": "2"}
WHOLE |= {"ring-ref1": "11", "event-channel-1": "12"}


def rings(nodes: dict[str, str]) -> tuple[Offer, ...] | str:
    return ninepfs.offered(lambda path: nodes.get(path.removeprefix(f"{FRONT}/")), FRONT)


def test_each_half_is_its_sides_and_names_the_other() -> None:
    nodes = ninepfs.plan_share("data", 3, Domid(7))
    back, front = "/local/domain/0/backend/9pfs/7/3", "/local/domain/7/device/9pfs/3"
    assert Node(back, None, ("n0", "r7")) in nodes and Node(front, None, ("n7", "r0")) in nodes
    values = {node.path: node.value for node in nodes}
    assert values[f"{back}/frontend"] == front and values[f"{front}/backend"] == back
    assert (values[f"{front}/tag"], values[f"{back}/max-rings"], values[f"{back}/state"]) == ("data", "2", "2")


def test_rings_are_as_the_driver_names_them() -> None:
    assert rings(WHOLE) == (Offer(GrantRef(1), EvtchnPort(2)), Offer(GrantRef(11), EvtchnPort(12)))
    assert rings(WHOLE | {"num-rings": "1"}) == (Offer(GrantRef(1), EvtchnPort(2)),)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ({}, "got version None, None rings"),
        (WHOLE | {"version": "2"}, "got version '2'"),
        (WHOLE | {"num-rings": "0"}, "0 rings"),
        (WHOLE | {"num-rings": "3"}, "None rings"),
        (WHOLE | {"num-rings": "9" * 400}, "None rings"),
        (WHOLE | {"ring-ref1": "-1"}, "for ring 1, got None and 12"),
        (WHOLE | {"ring-ref0": str(1 << 32)}, "for ring 0, got None and 2"),
        (WHOLE | {"event-channel-0": "0"}, "for ring 0, got 1 and 0"),
        (WHOLE | {"event-channel-1": "131072"}, "for ring 1, got 11 and None"),
    ],
)
def test_what_can_be_no_rings_is_told(nodes: dict[str, str], said: str) -> None:
    told = rings(nodes)
    assert isinstance(told, str) and said in told
