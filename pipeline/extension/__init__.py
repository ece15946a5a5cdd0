"""extension: an image that adds to a zone becomes an initrd segment, or a tree for the addons disk.

Takes:  FetchResult and UnpackResult of an extension image: one whose annotations or labels say what it is.
Gives:  ExtensionResult: what the image says of itself, where its files end up, its modules; for the initrd phase a raw
        newc segment, sorted and without times, made once for all zones.
Refuses what does not belong into an image of its kind. Whether it fits a zone is decided by `assemble`.
Needs:  no root, no network, no program.
"""

from pipeline.extension.model import ExtensionParams, ExtensionResult
from pipeline.extension.stage import VERSION, run

__all__ = ["VERSION", "ExtensionParams", "ExtensionResult", "run"]
