"""Who may import whom (ARCHITECTURE.md, "Rules"), read from the source, not from a run."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
LEAVES_OF_DOM0 = {"errors", "oci", "jsonmodel", "store", "newc", "progress", "recipe", "env", "cachekey", "seccomp"}
HEAVY = {
    "cryptography",
    "oras",
    "elftools",
    "jsonschema",
    "rich",
    "urllib3",
    "requests",
    "zstandard",
    "isal",
    "PySquashfsImage",
    "libarchive",
}


def sources(package: str) -> list[Path]:
    return sorted((PROJECT / package).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names a file imports, `if TYPE_CHECKING` blocks left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if top_level_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(), str(path)))
    return found


def below(names: set[str], package: str) -> set[str]:
    return {name for name in names if name == package or name.startswith(package + ".")}


def test_pipeline_never_imports_runtime():
    offences = {str(path): found for path in sources("pipeline") if (found := below(imports(path), "runtime"))}
    assert not offences


def test_stages_meet_only_through_their_models():
    stages = sorted(path.parent.name for path in (PROJECT / "pipeline").glob("*/stage.py"))
    assert {"fetch", "unpack", "squash", "initrd", "bundle"} <= set(stages)
    offences = []
    for stage in stages:
        for path in sources(f"pipeline/{stage}"):
            for other in stages:
                for name in below(imports(path), f"pipeline.{other}") if other != stage else ():
                    if name != f"pipeline.{other}" and not name.startswith(f"pipeline.{other}.model"):
                        offences.append(f"{path.relative_to(PROJECT)} imports {name}")
    assert not offences


def test_boot_and_net_use_only_the_bundle_model_of_the_pipeline():
    offences = []
    for package in ("runtime/boot", "runtime/net"):
        for path in sources(package):
            for name in below(imports(path), "pipeline"):
                parts = name.split(".")
                if len(parts) > 1 and parts[1] not in LEAVES_OF_DOM0 and not name.startswith("pipeline.bundle"):
                    offences.append(f"{path.relative_to(PROJECT)} imports {name}")
    assert not offences


def test_what_runs_in_the_zone_imports_only_the_standard_library_and_itself():
    """But for pipeline.seccomp, which imports nothing and is frozen into the zone's program with it."""
    offences = []
    for path in sources("runtime/init"):
        for name in imports(path) - below(imports(path), "pipeline.seccomp") - {"pipeline"}:
            root = name.split(".")[0]
            if root not in sys.stdlib_module_names and not name.startswith("runtime") and root != "zsys":
                offences.append(f"{path.relative_to(PROJECT)} imports {name}")
            if name.startswith("runtime") and not name.startswith("runtime.init") and name != "runtime":
                offences.append(f"{path.relative_to(PROJECT)} imports {name}")
    for path in sources("pipeline/seccomp"):
        offences += [f"{path.relative_to(PROJECT)} imports {name}" for name in imports(path)]
    assert [offence for offence in offences if "imports pipeline.seccomp" not in offence] == []


@pytest.mark.parametrize("package", ["pipeline", "runtime"])
def test_heavy_libraries_are_imported_where_they_are_used(package):
    offences = []
    for path in sources(package):
        found = {name.split(".")[0] for name in imports(path, top_level_only=True)} & HEAVY
        if found:
            offences.append(f"{path.relative_to(PROJECT)} imports {found} when it is imported itself")
    assert not offences


def test_only_dodo_imports_doit():
    offences = [str(path) for path in (*sources("pipeline"), *sources("runtime")) if below(imports(path), "doit")]
    assert not offences
    assert below(imports(PROJECT / "dodo.py"), "doit")


def test_recipe_folders_hold_no_python():
    for folder in ("os", "kernel", "zones"):
        assert not list((PROJECT / folder).rglob("*.py")), folder
