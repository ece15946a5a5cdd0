"""Compile modules to the C tables of frozen modules, all that the program has.

A script for the interpreter whose library is linked, since byte code belongs to one Python version:

    python3.11 -I -S -B -X no_debug_ranges freeze.py OUT.c NAME=FILE...   (FILE called __init__.py makes NAME a package)

The same files give the same text: modules are sorted, names in tracebacks are `<frozen NAME>`, docstrings, assertions
and columns of source lines are left out.

The library brings tables of its own, with some twenty modules as ready-made objects (frozen.o, deepfreeze.o): 900 KB,
and three million instructions at every start. Its names are defined here, so that the linker leaves those files out.
"""

from __future__ import annotations

import marshal
import sys
from pathlib import Path

_PER_LINE = 24
# What the interpreter needs before it can import anything, and the names it has for it: Python/frozen.c
_BOOTSTRAP = {
    "importlib._bootstrap": "_frozen_importlib",
    "importlib._bootstrap_external": "_frozen_importlib_external",
}
_TABLES = """\
static const struct _frozen nothing[] = {{0, 0, 0, 0, 0}};
const struct _frozen *_PyImport_FrozenBootstrap = bootstrap;
const struct _frozen *_PyImport_FrozenStdlib = nothing;
const struct _frozen *_PyImport_FrozenTest = nothing;
const struct _frozen *PyImport_FrozenModules = modules;

struct _module_alias { const char *name, *orig; }; /* Include/internal/pycore_import.h */
static const struct _module_alias aliases[] = {
%s    {0, 0},
};
const struct _module_alias *_PyImport_FrozenAliases = aliases;

int _Py_Deepfreeze_Init(void) { return 0; }
void _Py_Deepfreeze_Fini(void) {}
"""


def freeze(name: str, source: bytes) -> bytes:
    """The marshalled code of one module."""
    return marshal.dumps(compile(source, f"<frozen {name}>", "exec", dont_inherit=True, optimize=2))


def array(symbol: str, data: bytes) -> str:
    """Bytes as a C array."""
    rows = [",".join(map(str, data[at : at + _PER_LINE])) for at in range(0, len(data), _PER_LINE)]
    return f"static const unsigned char {symbol}[] = {{\n" + ",\n".join(rows) + "};\n"


def table(modules: dict[str, Path]) -> str:
    """The C source that defines the tables."""
    parts = ["#define PY_SSIZE_T_CLEAN\n#include <Python.h>\n"]
    rows: dict[str, list[str]] = {"bootstrap": [], "modules": []}
    for name, path in sorted(modules.items()):
        symbol = "M_" + name.replace(".", "__")
        code = freeze(name, path.read_bytes())
        parts.append(array(symbol, code))
        is_package = int(path.name == "__init__.py")
        row = f'    {{"{_BOOTSTRAP.get(name, name)}", {symbol}, {len(code)}, {is_package}, 0}},\n'
        rows["bootstrap" if name in _BOOTSTRAP else "modules"].append(row)
    for which, lines in rows.items():
        parts.append(f"static const struct _frozen {which}[] = {{\n{''.join(lines)}    {{0, 0, 0, 0, 0}},\n}};\n")
    parts.append(_TABLES % "".join([f'    {{"{ours}", "{name}"}},\n' for name, ours in _BOOTSTRAP.items()]))
    return "\n".join(parts)


if __name__ == "__main__":
    out, *pairs = sys.argv[1:]
    named = dict(pair.split("=", 1) for pair in pairs)
    Path(out).write_text(table({name: Path(path) for name, path in named.items()}))
