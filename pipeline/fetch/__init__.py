"""fetch: an image reference to blobs in the store, every digest and size checked. No root; the only stage with network.

Takes:  FetchParams: docker://, oci: or recipe: reference, platform.
Gives:  FetchResult: descriptors of manifest, config and layers, all in the store, and the layers' diff_ids.
Also:   debian.py, Debian packages by a lock, for the recipes.
"""

from pipeline.fetch.model import FetchParams, FetchResult
from pipeline.fetch.stage import VERSION, run

__all__ = ["VERSION", "FetchParams", "FetchResult", "run"]
