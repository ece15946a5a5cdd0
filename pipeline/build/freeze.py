"""Compile modules to the C tables of frozen modules, all that the program has.

A script for the interpreter whose library is linked, since byte code belongs to one Python version:

    python3.11 -I -S -B -X no_debug_ranges freeze.py OUT.c NAME=FILE...   (FILE called __init__.py makes NAME a package)

The same files give the same text: modules are sorted, names in tracebacks are `<frozen NAME>`, docstrings, assertions,
annotations and columns of source lines are left out.

Most of an import is making objects of the code: a third of the program's whole start. Modules that are imported one
with the other are therefore one pack, in which what they have in common, such as names, is there once (PACKS).

The library brings tables of its own, with some twenty modules as ready-made objects (frozen.o, deepfreeze.o): 900 KB,
and three million instructions at every start. Its names are defined here, so that the linker leaves those files out.
"""

from __future__ import annotations

import ast
import marshal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

_PER_LINE = 24
# What the interpreter imports everything else by, and the name it has for it: Python/frozen.c
_BOOTSTRAP = {"importlib._bootstrap": "_frozen_importlib"}
# A pack, `pack.NAME`, has all that the import of this module imports, unless an earlier one has it; `packs` says which
# has what.
PACKS = ("runtime.init.entry", "runtime.init.boot", "runtime.init.agent.main")
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


class _Bare(ast.NodeTransformer):
    """Leaves annotations out: each name and subscript in one is looked up as its function is defined."""

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = _function

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        made = ast.Pass() if node.value is None else ast.Assign([node.target], node.value)
        return ast.copy_location(made, node)


def compiled(name: str, source: bytes) -> CodeType:
    """The code of one module."""
    tree = ast.fix_missing_locations(_Bare().visit(ast.parse(source)))
    return compile(tree, f"<frozen {name}>", "exec", dont_inherit=True, optimize=2)


def freeze(name: str, source: bytes) -> bytes:
    """The marshalled code of one module."""
    return marshal.dumps(compiled(name, source))


def pack(modules: dict[str, Path]) -> bytes:
    """The marshalled code of a module whose `modules` are the code of these, by name."""
    return _saying(tuple((name, compiled(name, path.read_bytes())) for name, path in modules.items()))


def _saying(modules: tuple[tuple[str, object], ...]) -> bytes:
    code = compile("modules = None", "<frozen pack>", "exec", dont_inherit=True, optimize=2)
    return marshal.dumps(code.replace(co_consts=tuple(modules if each is None else each for each in code.co_consts)))


def imported(name: str, modules: dict[str, Path]) -> list[str]:
    """What the import of a module imports, with itself: what is said outside of functions, and all packages above."""
    found: dict[str, None] = {}

    def add(name: str) -> None:
        above, _, _ = name.rpartition(".")
        if above:
            add(above)
        if name in modules and name not in found:
            found[name] = None
            for other in _said(ast.parse(modules[name].read_bytes())):
                add(other)

    add(name)
    return sorted(found)


def _said(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (node.module, *(f"{node.module}.{each.name}" for each in node.names))


def array(symbol: str, data: bytes) -> str:
    """Bytes as a C array."""
    rows = [",".join(map(str, data[at : at + _PER_LINE])) for at in range(0, len(data), _PER_LINE)]
    return f"static const unsigned char {symbol}[] = {{\n" + ",\n".join(rows) + "};\n"


def table(modules: dict[str, Path]) -> str:
    """The C source that defines the tables."""
    left, packs, where = dict(modules), dict[str, bytes](), dict[str, str]()
    for first in PACKS:
        if first in left:
            chosen = {each: left[each] for each in imported(first, modules) if each in left}
            left = {each: path for each, path in left.items() if each not in chosen}
            packs[f"pack.{first}"] = pack(chosen)
            where |= dict.fromkeys(chosen, f"pack.{first}")
    packs["packs"] = _saying(tuple(where.items()))
    frozen = {name: freeze(name, path.read_bytes()) for name, path in left.items()} | packs
    parts = ["#define PY_SSIZE_T_CLEAN\n#include <Python.h>\n"]
    rows: dict[str, list[str]] = {"bootstrap": [], "modules": []}
    for name, code in sorted(frozen.items()):
        symbol = "M_" + name.replace(".", "__")
        parts.append(array(symbol, code))
        is_package = int(name in left and left[name].name == "__init__.py")
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
