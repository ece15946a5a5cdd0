"""`io` without its abstract base classes: what the interpreter makes sys.stdin, stdout and stderr with.

Source:  Python/pylifecycle.c, init_sys_streams.
"""

from _io import TextIOWrapper, open

__all__ = ["TextIOWrapper", "open"]
