"""The first page tables of a PV guest: which frames they take, and what is in them.

A mapping is linear: page i of it, at vaddr + i * 4096, is pfn first_pfn + i. Its L3, L2 and L1 tables lie in
consecutive frames from tables_pfn on; the L4 is shared by all mappings of a guest. Entries of one level are one long
array, whatever the number of tables, because the tables follow each other in the address space as in the frames.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.boot.abi.start_info import (
    ENTRIES_PER_TABLE,
    L1_WRITABLE,
    PAGE_SHIFT,
    PAGE_SIZE,
    PTE_RW,
    UPPER_LEVELS,
)
from runtime.boot.model import Pfn
from runtime.boot.p2m import Run, window

_SHIFT = {1: 12, 2: 21, 3: 30, 4: 39}  # bits of address below an entry's index, by level


@dataclass(frozen=True)
class Mapping:
    """nr_pages from first_pfn on, seen at vaddr; its tables (L3s, L2s, L1s) from tables_pfn on."""

    vaddr: int
    first_pfn: Pfn
    nr_pages: int
    tables_pfn: Pfn

    @property
    def nr_tables(self) -> int:
        """Frames of L3, L2 and L1 tables."""
        return sum(table_counts(self.vaddr, self.nr_pages))


def table_counts(vaddr: int, nr_pages: int) -> tuple[int, int, int]:
    """How many L3, L2 and L1 tables a linear mapping takes.

    Units:   nr_pages in 4 KiB pages, at least 1.
    """
    last = vaddr + (nr_pages << PAGE_SHIFT) - 1
    l3, l2, l1 = ((last >> _SHIFT[level + 1]) - (vaddr >> _SHIFT[level + 1]) + 1 for level in (3, 2, 1))
    return l3, l2, l1


def plan_tables(
    mapping: Mapping, l4: array[int], runs: Sequence[Run], p2m: array[int], *, read_only: range = range(0)
) -> array[int]:
    """Fill the tables of one mapping, and its entries in the L4.

    Shape:   result holds nr_tables * 512 entries, in frame order; `l4` (512 entries) is written in place.
    Units:   read_only is a range of pfns: page-table frames, which Xen lets no guest map writable.
    Source:  xen/include/public/arch-x86/xen-x86_64.h; PTE layout as in the AMD64 manual, volume 2.
    """
    counts = table_counts(mapping.vaddr, mapping.nr_pages)
    result = array("Q")
    child_pfn = int(mapping.tables_pfn)
    _fill(l4, mapping.vaddr, 4, _entries(p2m, child_pfn, counts[0]))
    for level, count in ((3, counts[0]), (2, counts[1])):
        child_pfn += count
        table = _zeroed(count)
        _fill(table, mapping.vaddr, level, _entries(p2m, child_pfn, counts[4 - level]))
        result.extend(table)
    leaves = array("Q")
    for run in window(runs, mapping.first_pfn, mapping.nr_pages):
        first = run.mfn << PAGE_SHIFT | L1_WRITABLE
        leaves.extend(range(first, first + (run.nr_pages << PAGE_SHIFT), PAGE_SIZE))
    for pfn in read_only:
        leaves[pfn - mapping.first_pfn] &= ~PTE_RW
    table = _zeroed(counts[2])
    _fill(table, mapping.vaddr, 1, leaves)
    result.extend(table)
    return result


def empty_l4() -> array[int]:
    """An L4 without entries."""
    return _zeroed(1)


def _zeroed(count: int) -> array[int]:
    return array("Q", bytes(count * PAGE_SIZE))


def _entries(p2m: array[int], first_pfn: int, count: int) -> array[int]:
    return array("Q", [mfn << PAGE_SHIFT | UPPER_LEVELS for mfn in p2m[first_pfn : first_pfn + count]])


def _fill(table: array[int], vaddr: int, level: int, entries: array[int]) -> None:
    index = vaddr >> _SHIFT[level] & ENTRIES_PER_TABLE - 1
    table[index : index + len(entries)] = entries
