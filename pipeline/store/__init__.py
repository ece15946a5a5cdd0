"""The content-addressed store; see `store.py` for its layout and its guarantees.

store       what builds use: blobs, results, names, locks        blobwriter  bytes on their way in
documents   manifests and small JSON                             form        which version of all this a store has
lease       what living processes hold against gc                usedays     on which days what was used
workshop    temporary files, and sweeping what killed ones left  graph       which blob names which
collect     `zone store gc`   fsck  `zone store fsck`             diskusage   `zone store du`
"""

from pipeline.durable import fsync_dir, write_atomic
from pipeline.store.blobwriter import BlobWriter, Sink, check_digest
from pipeline.store.store import Store, default_root

__all__ = ["BlobWriter", "Sink", "Store", "check_digest", "default_root", "fsync_dir", "write_atomic"]
