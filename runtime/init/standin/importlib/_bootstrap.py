"""`importlib._bootstrap`, the interpreter's way to import, where all there is is frozen or built in.

The library's has finders that are asked one after the other, and knows a module's loader, file and path: a million
instructions of each start, and half a million for each import. Here a module is in one of the packs that
pipeline/build/freeze.py makes, frozen alone, or built in; else it is not there.

The interpreter asks this module for _install, _install_external_importers and BuiltinImporter as it starts, for
_find_and_load where something imported is not in sys.modules, for _handle_fromlist where something is imported from a
package, for _module_repr. Of a module that is there it asks whether its __spec__ is `_initializing` and, of one that
names are imported from, whether it has a __path__: for each that does not say so it writes an AttributeError, so that
all modules here do.
Source:  Python/pylifecycle.c, init_importlib, add_main_module; Python/import.c, PyImport_ImportModuleLevelObject;
         Objects/moduleobject.c, module_repr, _PyModuleSpec_IsInitializing.
"""

MYPY = False
if MYPY:  # for annotations only: not imported in the zone; the first two are given, see _install
    import _imp
    import sys
    from types import CodeType, ModuleType
    from typing import Any


class BuiltinImporter:
    """Named as the loader of __main__, which nobody asks to load anything."""


class _Spec:
    """As much of a ModuleSpec as is asked of one."""

    _initializing = False
    _uninitialized_submodules = ()

    def __init__(self, name: str) -> None:
        self.name = name


_where: "dict[str, str]" = {}  # which pack has a module
_packed: "dict[str, CodeType]" = {}


def _install(sys_module: "ModuleType", imp_module: "ModuleType") -> None:
    """Begin, with what cannot be imported yet."""
    global sys, _imp
    sys, _imp = sys_module, imp_module
    _where.update(_said_by("packs"))
    for name, module in sys.modules.items():
        _show(name, module)


def _install_external_importers() -> None:
    """There are none."""


def _show(name: str, module: "ModuleType") -> None:
    module.__spec__ = _Spec(name)  # type: ignore[assignment]
    module.__path__ = ()  # type: ignore[assignment]


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
        raise ModuleNotFoundError(f"no module {name!r} in the zone's program", name=name)
    _show(name, module)
    if above:
        setattr(sys.modules[above], last, module)
    return module


def _said_by(name: str) -> "Any":
    """What a frozen module that is not one of the program's says, as its `modules`."""
    _imp.init_frozen(name)
    return sys.modules.pop(name).modules


def _from_pack(name: str, code: "CodeType") -> "ModuleType":
    module = sys.modules[name] = type(sys)(name)
    _show(name, module)  # before it imports what imports it
    try:
        exec(code, module.__dict__)
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


def _module_repr(module: "ModuleType") -> str:
    return f"<module {module.__name__!r}>"
