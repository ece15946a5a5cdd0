"""squash: a merged tree to a read-only file system image, the same bytes on every host. No root; no network.

Takes:  UnpackResult, compression, format.
Gives:  SquashResult: the image as a blob.
Runs:   tar2sqfs (squashfs-tools-ng), by way of pipeline.squashfs, which others use for plain tars.
"""

from pipeline.squash.model import SquashParams, SquashResult
from pipeline.squash.stage import VERSION, run

__all__ = ["VERSION", "SquashParams", "SquashResult", "run"]
