"""Import the program's frozen modules without importlib's search: half a million instructions less for each.

The interpreter asks _frozen_importlib._find_and_load for a module that is not in sys.modules (Python/import.c,
import_find_and_load), and that asks finder after finder. Here, all there is is frozen or built in.
"""

import _frozen_importlib
import _imp
import sys

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from types import ModuleType
    from typing import Any

_search = _frozen_importlib._find_and_load  # type: ignore[attr-defined]


def install() -> None:
    """Use the short way from here on; only in the program itself."""
    _frozen_importlib._find_and_load = _find_and_load  # type: ignore[attr-defined]


def _find_and_load(name: str, import_: "Any") -> "ModuleType":
    if not _imp.is_frozen(name):
        found: ModuleType = _search(name, import_)  # a built-in module
        return found
    above, _, last = name.rpartition(".")
    if above and above not in sys.modules:
        _find_and_load(above, import_)
    _imp.init_frozen(name)
    module = sys.modules[name]
    if above:
        setattr(sys.modules[above], last, module)
    return module
