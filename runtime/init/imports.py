"""Import the program's frozen modules without importlib's search: half a million instructions less for each.

The interpreter asks _frozen_importlib._find_and_load for a module that is not in sys.modules, and _handle_fromlist for
what is imported from a package (Python/import.c, import_find_and_load, PyImport_ImportModuleLevelObject); the one asks
finder after finder, the other has an AttributeError written for each module that is not there yet. Here, all there is
is frozen, alone or in one of the packs that pipeline/build/freeze.py makes, or built in.
"""

import _frozen_importlib
import _imp
import sys

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from types import CodeType, ModuleType
    from typing import Any

_Module = type(sys)
_search = _frozen_importlib._find_and_load  # type: ignore[attr-defined]


class _Spec:
    """As much of a ModuleSpec as is asked of that of a built-in module."""

    def __init__(self, name: str) -> None:
        self.name = name


_where: "dict[str, str]" = {}  # which pack has a module
_packed: "dict[str, CodeType]" = {}


def install() -> None:
    """Use the short way from here on; only in the program itself."""
    _frozen_importlib._find_and_load = _find_and_load  # type: ignore[attr-defined]
    _frozen_importlib._handle_fromlist = _handle_fromlist  # type: ignore[attr-defined]
    _where.update(_said_by("packs"))


def _find_and_load(name: str, import_: "Any") -> "ModuleType":
    if name in _where and name not in _packed:
        _packed.update(_said_by(_where[name]))
    above, _, last = name.rpartition(".")
    if above and above not in sys.modules:
        _find_and_load(above, import_)
    if name in _packed:
        module = _from_pack(name, _packed.pop(name))
    elif _imp.is_frozen(name):
        _imp.init_frozen(name)
        module = sys.modules[name]
    elif _imp.is_builtin(name) == 1:
        module = sys.modules[name] = _imp.create_builtin(_Spec(name))  # type: ignore[arg-type]
        _imp.exec_builtin(module)
    else:
        module = _search(name, import_)  # there is none: it says so
    if above:
        setattr(sys.modules[above], last, module)
    return module


def _said_by(name: str) -> "Any":
    """What a frozen module that is not one of the program's says, as its `modules`."""
    _imp.init_frozen(name)
    return sys.modules.pop(name).modules


def _from_pack(name: str, code: "CodeType") -> "ModuleType":
    module = sys.modules[name] = _Module(name)
    values = module.__dict__
    # As if each were a package: else the interpreter has an AttributeError written for each import of names from it.
    values["__path__"] = ()
    try:
        exec(code, values)
    except BaseException:  # for want of memory, say: half a module is none, and may be asked for again
        del sys.modules[name]
        raise
    return module


def _handle_fromlist(module: "ModuleType", names: "tuple[str, ...]", import_: "Any") -> "ModuleType":
    known = module.__dict__
    for name in names:
        if name not in known:
            whole = f"{module.__name__}.{name}"
            if whole not in sys.modules:
                _find_and_load(whole, import_)
    return module
