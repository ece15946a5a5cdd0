"""initrd: a kernel image and the zone's init become what a domain is started with.

Takes:  UnpackResult of a kernel image, InitResult.
Gives:  InitrdResult: the kernel as an ELF file with Xen notes, raw newc segments (base, modules), module load order,
        the kernel's addons where they hold more than the initrd already has.
Parses: the kernel in a child without privileges, descriptors or much memory; see bzimage.py.
Needs:  no root, no network, no program.
"""

from pipeline.initrd.model import InitrdParams, InitrdResult
from pipeline.initrd.stage import VERSION, run

__all__ = ["VERSION", "InitrdParams", "InitrdResult", "run"]
