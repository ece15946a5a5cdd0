"""Compile modules to the C table PyImport_FrozenModules points at.

A script for the interpreter whose library is linked, since byte code belongs to one Python version:

    python3.11 -I -S -B freeze.py OUT.c NAME=FILE...          (FILE called __init__.py makes NAME a package)

The same files give the same text: modules are sorted, names in tracebacks are `<frozen NAME>`, docstrings and
assertions are left out.
"""

from __future__ import annotations

import marshal
import sys
from pathlib import Path

_PER_LINE = 24


def freeze(name: str, source: bytes) -> bytes:
    """The marshalled code of one module."""
    return marshal.dumps(compile(source, f"<frozen {name}>", "exec", dont_inherit=True, optimize=2))


def array(symbol: str, data: bytes) -> str:
    """Bytes as a C array."""
    rows = [",".join(map(str, data[at : at + _PER_LINE])) for at in range(0, len(data), _PER_LINE)]
    return f"static const unsigned char {symbol}[] = {{\n" + ",\n".join(rows) + "};\n"


def table(modules: dict[str, Path]) -> str:
    """The C source that defines zone_frozen_modules."""
    parts = ["#define PY_SSIZE_T_CLEAN\n#include <Python.h>\n"]
    rows = []
    for name, path in sorted(modules.items()):
        symbol = "M_" + name.replace(".", "__")
        code = freeze(name, path.read_bytes())
        parts.append(array(symbol, code))
        is_package = int(path.name == "__init__.py")
        rows.append(f'    {{"{name}", {symbol}, {len(code)}, {is_package}, 0}},\n')
    parts.append("const struct _frozen zone_frozen_modules[] = {\n" + "".join(rows) + "    {0, 0, 0, 0, 0},\n};\n")
    return "\n".join(parts)


if __name__ == "__main__":
    out, *pairs = sys.argv[1:]
    named = dict(pair.split("=", 1) for pair in pairs)
    Path(out).write_text(table({name: Path(path) for name, path in named.items()}))
