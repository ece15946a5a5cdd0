"""squash: a merged tree to one file, the same bytes on every host. No root; no network.

Takes:  UnpackResult, format (squashfs, erofs, tar), compression.
Gives:  SquashResult: the image as a blob.
Runs:   mkfs.erofs; squashfs images are written here, with libsquashfs, by pipeline.squashfs.
"""

from pipeline.squash.formats import form_of
from pipeline.squash.model import SquashParams, SquashResult
from pipeline.squash.stage import VERSION, run

__all__ = ["VERSION", "SquashParams", "SquashResult", "form_of", "run"]
