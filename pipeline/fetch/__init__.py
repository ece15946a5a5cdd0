"""fetch: an image reference to blobs in the store, every digest and size checked. No root; the only stage with network.

Takes:  FetchParams: a docker://, oci:, oci-archive:, docker-archive: or recipe: reference, and a platform.
Gives:  FetchResult: descriptors of manifest, config and layers, all in the store, and the layers' diff_ids.
Also:   artifact.py, anything else a registry keeps; lock.py, tags and their digests; debian.py, Debian packages by a
        lock, for the recipes.
"""

from pipeline.fetch.model import FetchParams, FetchResult
from pipeline.fetch.stage import VERSION, Opened, bring, opened, run

__all__ = ["VERSION", "FetchParams", "FetchResult", "Opened", "bring", "opened", "run"]
