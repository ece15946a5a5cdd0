"""Two hosts: what the second one saves when the first one's results are in a remote cache."""

from __future__ import annotations

from pathlib import Path

from place import PAIRS, Place, cold, middle
from process import Spent, zone
from run import Measure, NotMeasured

from pipeline.remote import keys


def two_hosts(at: Place) -> list[Measure]:
    """The second host's time with a warm remote cache, by the first one's build without any cache, in turn.

    Each host is a store of its own; what binds them is the registry. Both write the same file of the same image.
    """
    pinned = at.pinned("standard")
    cache = f"docker://{at.registry}/bench/cache"
    key = at.scratch / "signing.key"
    public = keys.generate(key)
    first, second = at.scratch / "first.toml", at.scratch / "second.toml"
    first.write_text(f'[cache]\nremote = "{cache}"\nkeys = ["{public}"]\nsigning_key = "{key}"\n')
    second.write_text(f'[cache]\nremote = "{cache}"\nkeys = ["{public}"]\n')
    published, digest = host(at, pinned, first)
    alone: list[Spent] = []
    helped: list[Spent] = []
    for _ in range(PAIRS):
        alone.append(host(at, pinned, None)[0])
        spent, found = host(at, pinned, second)
        helped.append(spent)
        if found != digest:
            raise NotMeasured(f"the second host has {found}, the first {digest}")
    return [
        Measure("two_hosts_ratio", middle(b.wall_s / a.wall_s for a, b in zip(alone, helped, strict=True))),
        Measure("two_hosts_first", middle(one.wall_s for one in alone), "s"),
        Measure("two_hosts_publish", round(published.wall_s, 3), "s"),
        Measure("two_hosts_second", middle(one.wall_s for one in helped), "s"),
        Measure("two_hosts_second_cpu", middle(one.cpu_s for one in helped), "s"),
    ]


def host(at: Place, reference: str, config: Path | None) -> tuple[Spent, str]:
    """Pack on a host that has nothing; the digest of what came out. Raises NotMeasured where the cache failed it."""
    with cold(at.scratch) as work:
        spent = zone(work / "store", "image", "pack", reference, "-o", work / "out.squashfs", config=config)
    if complaints := [line for line in spent.told.splitlines() if line.startswith("cache docker://")]:
        raise NotMeasured(complaints[0])
    return spent, spent.said
