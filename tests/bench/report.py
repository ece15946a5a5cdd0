"""Writes docs/bench.md from what the last benchmarks left in build/bench: `python tests/bench/report.py`.

A bench that left nothing there keeps the section it has.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

from run import BENCHES, OUT, PROJECT, goals_of

REPORT = PROJECT / "docs" / "bench.md"
PICTURES = {
    "boot": {
        "boot-warm.svg": "a boot from the snapshot: what the host, zoned and the zone do, and when",
        "boot-lab-up.svg": "a boot with the lab already up: what the host, zoned and the zone do, and when",
    },
    "pipeline": {
        "pipeline-bars.svg": "seconds of wall and CPU time: ours, the usual way, the limit of two cores",
        "pipeline-time.svg": "one packing over time: its steps, and the processors in use",
    },
    "zone": {
        "zone-entry.svg": "from kernel entry to the workload's exec: stock command line, and the best one found",
    },
    "net": {
        "net-bars.svg": "Gbit/s of one TCP connection: kernel NAT, a zone's network, pasta, slirp4netns",
    },
}
HEAD = """# Measurements

Taken by `./doit bench` and written here by `tests/bench/report.py`. The lab is emulated (QEMU, TCG): seconds compare
with seconds of the same machine only, ratios are of one run. Goals stand in [goals.toml](../tests/bench/goals.toml).
"""


def main() -> None:
    """One section a bench, with its pictures."""
    parts, kept = [HEAD], sections(REPORT.read_text())
    for bench in BENCHES:
        path, known = OUT / f"{bench}.json", goals_of(bench)
        if path.is_file():
            parts.append(section(bench, json.loads(path.read_text()), known))
            parts += [text for text in (ABOUT.get(bench),) if text]
            parts += [show(name, title) for name, title in PICTURES.get(bench, {}).items() if (OUT / name).is_file()]
        elif bench in kept:
            parts.append(kept[bench])
    REPORT.write_text("\n".join(parts))


def sections(text: str) -> dict[str, str]:
    """The sections of a report as it is, by bench."""
    found = {part.split("\n", 1)[0]: f"## {part}" for part in text.split("\n## ")[1:]}
    return {bench: part.rstrip("\n") + "\n" for bench, part in found.items()}


def show(name: str, title: str) -> str:
    """Take a picture over into docs; the line that shows it."""
    shutil.copyfile(OUT / name, PROJECT / "docs" / name)
    return f"![{title}]({name})\n"


def section(bench: str, document: dict[str, Any], goals: dict[str, Any]) -> str:
    """A bench's machine and its rows."""
    machine = document["machine"]
    lines = [
        f"## {bench}\n",
        f"{document['date']}; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"Linux {machine['kernel']}, Python {machine['python']}, load {machine['load_1min']} at the start.\n",
        "| measure | what | value | goal | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in document["rows"]:
        verdict = {True: "ok", False: "short", None: ""}[row["ok"]]
        what = goals.get(row["name"], {}).get("text") or WHAT.get(row["name"], "")
        value = "not measured: " + row["why"] if row["value"] is None else f"{row['value']:g} {row['unit']}"
        lines.append(f"| `{row['name']}` | {what} | {value} | {row['goal']} | {verdict} |")
    return "\n".join(lines) + "\n"


WHAT = {
    "build_unpause": "our builder in zoned's place: from the plan to the running domain, 128 MiB, no devices",
    "xl_create": "`xl create` as a whole process, the same kernel ELF and initrd",
    "build_whole_process": "our builder as a whole process, the start of Python and its imports included",
    "pack_nginx": "`zone image pack` of the nginx image with an empty store",
    "pack_wall": "`zone image pack` from the registry with an empty store, whole process",
    "pack_cpu": "the same, CPU time of all its processes",
    "pack_zstd_wall": "the same image with zstd layers",
    "pack_zstd_cpu": "the same, CPU time",
    "usual_wall": "the three commands of the usual way, with empty directories",
    "usual_cpu": "the same, CPU time",
    "usual_peak": "the same, peak memory of the largest process",
    "limit_wall": "the computed limit: half of the CPU time of the next three",
    "limit_inflate": "inflating the layers by isal, CPU time",
    "limit_hashes": "sha256 of the layers' compressed and plain bytes, CPU time",
    "limit_compressor": "zstd-3 on the merged tar in 128 KiB blocks, by two threads and our compressor, CPU time",
    "image_layers": "the image: four layers of gzip",
    "pack_size": "our squashfs",
    "usual_size": "mksquashfs's",
    "peak_memory_1x": "peak memory for the image",
    "peak_memory_4x": "peak memory for sixteen layers with four times the content",
    "hit_pull_best": "the fastest cache hit",
    "hit_pull_cpu": "CPU time of a cache hit",
    "growth_entries_1x": "CPU time for 8,000 entries in 4 layers, above that of an image with one file",
    "growth_entries_10x": "CPU time for 80,000 entries in 4 layers, likewise",
    "growth_layers_1x": "CPU time for 4 layers of 2,000 entries, likewise",
    "growth_layers_10x": "CPU time for 40 layers of 2,000 entries, likewise",
    "growth_directory": "the same with ten times the entries in a single directory",
    "growth_directory_1x": "CPU time for 3,000 entries in one directory, likewise",
    "growth_directory_10x": "CPU time for 30,000 entries in one directory, likewise",
    "two_hosts_first": "`zone image pack` on the first host, with an empty store and no remote cache",
    "two_hosts_publish": "the same, publishing its results",
    "two_hosts_second": "`zone image pack` on the second host: an empty store, a warm remote cache",
    "two_hosts_second_cpu": "the same, CPU time",
    "exec_command_p50": "`zone exec ZONE true`, whole process, median",
    "exec_command_p99": "the same, the slowest of a hundred",
    "exec_p50": "an exec of true within one connection, median",
    "exec_p99": "the same, the slowest of a hundred",
    "channel_p50": "the bare channel: a ping of the agent by zoned, median",
    "channel_p99": "the same, the slowest of a hundred",
    "channel_throughput": "4 MiB from this machine through cat in the zone and back, over hvc1, the median of three",
    "exec_channel_ratio": "exec of true : bare channel, medians",
    "entry_stock": "kernel entry to the workload's exec, stock command line: the median of five",
    "entry_best": "the same, the best command line found, which is the one zones have",
    "entry_ratio": "stock : best, the median of pairs",
    "entry_more": "the best command line, with more modules than the four a zone needs (`tests/bench/entry.py`)",
    **{
        f"entry_{name}_{phase}": f"of this boot ({what}), kernel entry to the phase {phase}"
        for name, what in (("stock", "stock command line"), ("best", "best"), ("more", "best, more modules"))
        for phase in ("init", "modules", "root", "network")
    },
    "zones_at_once_memory": "memory of each, the smallest with which the zone serves",
    "zones_at_once_each": "wall time of all ten, by zone",
    "zones_at_once_slowest": "until the last of them served",
    "zoned_memory": "zoned's resident memory with ten zones",
    "kills_requests": "pages the five zones served meanwhile",
    "kills_lines": "numbered lines in the five zones' logs, without a gap",
    "kills_back": "from a kill until the next zoned answers, median",
    "container_start_fastest": "a container's start, until the host hears that its command runs, without a ping",
    "container_start_median": "the same, the median of sixty",
    "bare_start_fastest": "a fork and exec by the agent, likewise",
    "bare_start_median": "the same, the median of sixty",
    "memory_program": "of this, the program itself, which lies in memory whole",
    "memory_init": "of this, pid 1",
    "memory_agent": "of this, the agent with a session, idle",
    "memory_static_c": "a static C program of two processes, which is taken off",
    "whole_job_modules": "what loading the five modules of that guest takes, nearly all of it in the kernel",
    "channel_ping_p50": "round trip of the channel's smallest call, the median of a thousand",
    "channel_ping_p99": "the same, the slowest of a hundred",
    "channel_to_zone": "8 MiB to a process in the zone that reads them",
    "channel_from_zone": "8 MiB from a process in the zone",
    "channel_echo": "8 MiB there and back, both at once",
    "tcp_up_ours": "one TCP stream from a zone, ours",
    "tcp_up_kernel": "the same, kernel bridge and NAT",
    "tcp_down_ours": "one TCP stream to a zone, ours",
    "tcp_down_kernel": "the same, kernel bridge and NAT",
    "streams8_up_ours": "eight TCP streams from a zone, ours",
    "streams8_up_kernel": "the same, kernel bridge and NAT",
    "streams8_down_ours": "eight TCP streams to a zone, ours",
    "streams8_down_kernel": "the same, kernel bridge and NAT",
    "opens32_ours": "new connections, 32 at a time, ours",
    "opens32_kernel": "the same, kernel bridge and NAT",
    "flood_p99_ratio": "a zone's connections, 99 of 100, while its neighbour floods : while it does not",
    "flood_p99": "so long they take while a zone of the same network opens connections as fast as it can",
    "flood_p99_quiet": "the same without",
    "flood_rate": "what that neighbour asks for, to a port that refuses and to a black hole",
    "opens1_ratio": "new connections per second, one after the other, ours : kernel bridge and NAT",
    "opens1_ours": "new connections, one after the other, ours",
    "opens1_kernel": "the same, kernel bridge and NAT",
    "trip_ours": "round trip of one byte, median, ours",
    "trip_kernel": "the same, kernel bridge and NAT",
    "udp_ours": "UDP of 1,400 bytes received, 400 Mbit/s offered, ours",
    "udp_kernel": "the same, kernel bridge and NAT",
    "zone_to_zone_ours": "TCP between two vifs on a network's bridge",
    "zone_to_zone_kernel": "the same on a plain kernel bridge",
    "up_ratio": "one TCP stream from a zone to the outside, ours : kernel NAT in dom0",
    "up_ours": "the same, ours",
    "up_kernel": "the same, kernel NAT",
    "down_ratio": "one TCP stream from the outside to a zone, ours : kernel NAT in dom0",
    "down_ours": "the same, ours",
    "down_kernel": "the same, kernel NAT",
    "page_ratio": "time of a page of the zone's nginx, fetched from the outside, ours : kernel NAT in dom0",
    "page_ours": "the same, ours",
    "page_kernel": "the same, kernel NAT",
    "tcp_up_pasta": "one TCP stream outwards, pasta",
    "tcp_down_pasta": "one TCP stream inwards, pasta",
    "opens32_pasta": "new connections, 32 at a time, pasta",
    "trip_pasta": "round trip of one byte, median, pasta",
    "tcp_up_slirp4netns": "one TCP stream outwards, slirp4netns",
    "tcp_down_slirp4netns": "one TCP stream inwards, slirp4netns",
    "opens32_slirp4netns": "new connections, 32 at a time, slirp4netns",
    "trip_slirp4netns": "round trip of one byte, median, slirp4netns",
    "idle_memory_none": "the same without a connection",
    "killed_served_again_median": "the same, the median",
    "killed_pings_sent": "pings sent meanwhile",
}
ABOUT = {
    "init": """The zone's own program as pid 1 of namespaces on the machine that measures, a pty for its channel, a loop
device for its disk. Instructions are those of an emulated machine without Xen (`tests/bench/guest.py`), counted one by
one by a plugin of QEMU's: in user mode, where all that runs is the zone's program, and the kernel's on its behalf. The
goals were found in a guest with the kernel's part in them, and without the loading of modules: `first_line_guest` and
`whole_job_guest` are counted so.
""",
    "pipeline": """The image: Debian with its documentation; nginx; python3 with numpy, git and more; a layer of hard
cases made by hand, which hides all translations, too (`tests/support/benchimage.py`). Ours, the usual way and the limit
are taken in turn, each as whole processes, the registry on loopback and its files in the page cache; ratios are medians
over the rounds. The usual way is `skopeo copy`, `umoci unpack` and `mksquashfs` with the same level, block size and
number of threads. CPU time is that of a command and all it started; the registry's own is not in it. ocirender is left
out: it wants mksquashfs 4.6, Debian 12 has 4.5.1. Linear growth is an exponent of 1; 1.1 leaves room for caches and
noise.
""",
    "netback": """A lab with two zones, each on a network of its own: one is as zoned makes it, the other is turned into
a router, with the kernel's forwarding and nft masquerade in the place of our engine. iperf3's server and who asks
for pages are in a namespace of dom0. All of it shares two emulated processors: ratios of one run are what counts.
""",
    "net": """Namespaces of one machine stand for a zone, the host and a server outside, a veth for the vif: no Xen. The
network, its rules and its engine are the product's, started as zoned starts them; beside them stands a kernel bridge
with nft masquerade, and both are loaded in turn by iperf3 or a small client of Python. Clients, servers and the engine
share the machine's cores, so only ratios of one run compare; they are medians of pairs. Congestion control is the same
everywhere: cubic, or reno where this machine does not let namespaces have cubic. pasta and slirp4netns have MTU 1500
and no bridge in front. The two vifs of zone to zone are attached to one bridge, as the product does it.
""",
}


if __name__ == "__main__":
    main()
