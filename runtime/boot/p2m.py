"""The p2m table, pfn to mfn, from the runs of machine pages Xen granted.

Work is done per run, not per page: a 2 MiB extent is one range(), which array reads without a bytecode loop.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from runtime.boot.errors import HypervisorFault
from runtime.boot.model import Mfn, Pfn


class Extent(NamedTuple):
    """`nr_blocks` blocks of 2**order pages each, wanted from pfn on."""

    pfn: Pfn
    order: int
    nr_blocks: int


class Run(NamedTuple):
    """Pages pfn, pfn+1, … lie at mfn, mfn+1, …"""

    pfn: Pfn
    mfn: Mfn
    nr_pages: int


ORDER_2MIB = 9


def plan_extents(nr_pages: int) -> tuple[Extent, ...]:
    """The memory to ask for: 2 MiB blocks, then single pages for what is left."""
    blocks, rest = divmod(nr_pages, 1 << ORDER_2MIB)
    extents = (Extent(Pfn(0), ORDER_2MIB, blocks), Extent(Pfn(blocks << ORDER_2MIB), 0, rest))
    return tuple(extent for extent in extents if extent.nr_blocks)


def runs_of(extent: Extent, mfns: Iterable[int]) -> list[Run]:
    """The runs that an extent became; adjacent blocks are one run."""
    runs: list[Run] = []
    block = 1 << extent.order
    start, length = 0, 0
    pfn = int(extent.pfn)
    for mfn in mfns:
        if length and mfn == start + length:
            length += block
            continue
        if length:
            runs.append(Run(Pfn(pfn), Mfn(start), length))
            pfn += length
        start, length = mfn, block
    if length:
        runs.append(Run(Pfn(pfn), Mfn(start), length))
    return runs


def plan_p2m(nr_pages: int, runs: Sequence[Run]) -> array[int]:
    """Build the p2m table.

    Shape:   result[pfn] is an mfn; len == nr_pages; runs come in order and without holes.
    Units:   nr_pages in 4 KiB pages.
    Raises:  HypervisorFault where the runs do not cover the memory exactly.
    """
    table = array("Q")
    for run in runs:
        if run.pfn != len(table):
            raise HypervisorFault("p2m", expected=f"memory from pfn {len(table):#x}", got=f"pfn {run.pfn:#x}")
        table.extend(range(run.mfn, run.mfn + run.nr_pages))
    if len(table) != nr_pages:
        raise HypervisorFault("p2m", expected=f"{nr_pages} pages", got=f"{len(table)}")
    return table


def window(runs: Sequence[Run], first_pfn: int, nr_pages: int) -> list[Run]:
    """The runs, cut to [first_pfn, first_pfn + nr_pages)."""
    end = first_pfn + nr_pages
    cut = []
    for run in runs:
        low, high = max(run.pfn, first_pfn), min(run.pfn + run.nr_pages, end)
        if low < high:
            cut.append(Run(Pfn(low), Mfn(run.mfn + low - run.pfn), high - low))
    return cut
