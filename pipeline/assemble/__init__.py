"""assemble: kernel, init and extension images become one zone's initrd segments, module list and addons disk.

Takes:  InitrdResult of the kernel, UnpackResult of the image to run, ExtensionResults, the spec's choices.
Gives:  AssembleResult: segments in order, modules in load order, one addons squashfs.
Refuses extensions that do not fit the zone or each other, naming both.
Tools:  libsquashfs, where there is something to merge. Privileges: none. Network: none.
"""

from pipeline.assemble.model import AssembleParams, AssembleResult
from pipeline.assemble.stage import VERSION, run

__all__ = ["VERSION", "AssembleParams", "AssembleResult", "run"]
