"""What the machine says no to, as one sentence."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from pipeline.errors import PipelineError
from pipeline.store import default_root


class MachineSaysNo(PipelineError):
    """A full disk, a file that may not be read or written."""


@contextlib.contextmanager
def machine_errors() -> Iterator[None]:
    """Turn an OSError into a MachineSaysNo; a reader of our output who went away is none."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        hint = "free space there and run again" if error.errno == errno.ENOSPC else ""
        where = str(error.filename or f"store {default_root()}")
        raise MachineSaysNo(where, got=str(error.strerror or error), hint=hint) from error
