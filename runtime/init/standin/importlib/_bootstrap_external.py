"""`importlib._bootstrap_external` without its finders of files: there are none to import from.

Source:  Python/pylifecycle.c, init_importlib_external; Lib/importlib/_bootstrap.py, _install_external_importers.
"""

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from types import ModuleType


def _install(importlib: "ModuleType") -> None:
    """What the interpreter calls at its start; the built-in and the frozen modules have finders already."""
