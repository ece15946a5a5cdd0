"""What is checked before a lab starts, and the code disk."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import setuptools
from setuptools.config import pyprojecttoml

from pipeline import tool
from pipeline.recipe import PROJECT
from pipeline.store import Store
from runtime.host.lab import codedisk, parts, probe
from runtime.host.lab.config import LabConfig
from runtime.host.lab.errors import LabUnfit
from runtime.version import VERSION


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_no_qemu_names_the_package(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    def missing(name: str, *, package: str = "") -> str:
        raise tool.ToolMissing(name, got="missing")

    monkeypatch.setattr(parts.tool, "find", missing)
    with pytest.raises(LabUnfit, match=r"qemu-system-x86_64: .*apt-get install qemu-system-x86"):
        parts.gather(LabConfig(), store, mark="m")


def test_no_dom0_image_says_what_to_run(store: Store) -> None:
    with pytest.raises(
        LabUnfit, match=r"dom0 image debian13: .*got none \(\./doit os:debian13 makes it, or takes it from the cache"
    ):
        parts.dom0_layers(store, "debian13")


def test_too_little_memory_says_how_much_is_needed(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setattr(parts, "memory_available_mib", lambda: 300)
    config = LabConfig(memory_mib=1024)
    with pytest.raises(LabUnfit, match=f"expected {config.host_memory_mib} MiB available .* got 300 MiB"):
        parts.check_resources(config, store)


def test_too_little_disk_says_how_much_is_needed(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    usage = type(shutil.disk_usage("/"))(total=1 << 40, used=0, free=100 << 20)
    monkeypatch.setattr(parts.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(parts, "memory_available_mib", lambda: 100_000)
    with pytest.raises(LabUnfit, match="expected 512 MiB free for the snapshot, got 100 MiB"):
        parts.check_resources(LabConfig(), store)


def test_memory_is_what_the_kernel_calls_available(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 4096000 kB\nMemFree: 1 kB\nMemAvailable: 2048000 kB\n")
    assert parts.memory_available_mib(tmp_path / "meminfo") == 2000


# -- the code disk -----------------------------------------------------------------------------------------------------


def test_the_code_disk_has_what_dom0_imports_and_neither_lab_nor_tests() -> None:
    files = codedisk.code_files()
    wanted = {"runtime/host/dom0/start.py", "runtime/host/zoned.py", "runtime/host/wire.py", "pipeline/errors.py"}
    assert wanted | {"pipeline/__init__.py", "pyxs/client.py"} <= set(files)
    assert {"grpclib/server.py", "google/_upb/_message.abi3.so"} <= set(files)
    assert not [name for name in files if name.startswith(("runtime/host/lab/", "tests/"))]
    of_the_zone = {name for name in files if name.startswith("runtime/init/")}
    assert all(name.startswith(("runtime/init/channel/", "runtime/init/__init__")) for name in of_the_zone)
    assert "runtime/init/channel/frames.py" in of_the_zone


def test_every_module_of_the_project_that_dom0s_zoned_imports_is_on_the_disk(tmp_path: Path) -> None:
    for name, data in codedisk.code_files().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    # -I -S: no site-packages and no working directory, as on the plain Python of dom0.
    modules = [
        *("zoned", "daemon.manager", "agentlink", "serve.host", "serve.server", "cli"),
        *("dom0.agent", "dom0.start", "dom0.keeper", "client.client", "client.dialstdio", "hosts"),
        *("certificates", "serve.control.service"),
    ]
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
    code += "".join(f"import runtime.host.{module}; " for module in modules)
    code += "from google.protobuf.internal import api_implementation as a; print(a.Type()); "
    code += "import multidict; print(multidict.MultiDict.__module__); "
    code += "print(runtime.host.daemon.core.Settings(None, None).version)"  # what GetStatus says
    said = tool.run([sys.executable, "-I", "-S", "-c", code], timeout_s=60).decode()
    assert said.split() == ["upb", "multidict._multidict_py", VERSION]


@pytest.mark.filterwarnings("ignore:.*project.license")
def test_an_installed_package_has_the_version_the_code_says() -> None:
    package = pyprojecttoml.apply_configuration(
        setuptools.Distribution({"src_root": str(PROJECT)}), PROJECT / "pyproject.toml"
    )
    assert package.get_version() == VERSION


def test_nothing_on_the_code_disk_is_for_one_version_of_python() -> None:
    compiled = [name for name in codedisk.code_files() if not name.endswith((".py", ".json"))]
    assert compiled == ["certifi/cacert.pem", "google/_upb/_message.abi3.so"]


def test_imports_inside_functions_of_the_pipeline_are_followed_where_all_of_it_is_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pipeline" / "stage").mkdir(parents=True)
    for name, text in {
        "main.py": "def f():\n    from pipeline.a import x\n",
        "pipeline/__init__.py": "",
        "pipeline/a.py": "from pipeline.stage import b\ndef g():\n    import pipeline.c\n",
        "pipeline/c.py": "",
        "pipeline/stage/__init__.py": "",
        "pipeline/stage/b.py": "import json\n",
    }.items():
        (tmp_path / name).write_text(text)
    expected = ["pipeline/__init__.py", "pipeline/a.py", "pipeline/stage/__init__.py", "pipeline/stage/b.py"]
    monkeypatch.setattr(codedisk, "WHOLE", ())
    assert codedisk.pipeline_modules(tmp_path, ["main.py"]) == expected
    monkeypatch.setattr(codedisk, "WHOLE", ("main.py",))
    assert codedisk.pipeline_modules(tmp_path, ["main.py"]) == sorted([*expected, "pipeline/c.py"])


def test_equal_code_gives_an_equal_disk_and_other_code_another(tmp_path: Path) -> None:
    files = {"runtime/a.py": b"a = 1\n", "runtime/b/__init__.py": b""}
    first = codedisk.code_disk(Store(tmp_path / "one"), files)
    assert codedisk.code_disk(Store(tmp_path / "two"), dict(reversed(files.items()))).digest == first.digest
    assert codedisk.code_disk(Store(tmp_path / "two"), files | {"runtime/a.py": b"a = 2\n"}).digest != first.digest


def test_the_code_disk_lists_only_files_of_the_checkout() -> None:
    files = codedisk.code_files()
    for name, data in files.items():
        if name.startswith(("runtime/", "pipeline/")):
            assert (PROJECT / name).read_bytes() == data


# -- the probe ---------------------------------------------------------------------------------------------------------


def says(tmp_path: Path, text: str, seconds: float = 0) -> tuple[bool, str]:
    code = f"import time; print({text!r}, flush=True); time.sleep({seconds})"
    return probe.kvm_works([sys.executable, "-c", code], tmp_path, "k" * 64)


@pytest.fixture
def kvm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(probe, "KVM", tmp_path / "kvm")
    (tmp_path / "kvm").touch()
    return tmp_path


def test_without_kvm_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probe, "KVM", tmp_path / "none")
    assert probe.kvm_works(["/nonexistent"], tmp_path, "k" * 64) == (False, "no /dev/kvm")


def test_a_dom0_that_speaks_is_a_yes_and_is_remembered(kvm: Path) -> None:
    assert says(kvm, "(XEN) x\nzonewright: dom0 starts", 60)[0] is True
    assert probe.kvm_works(["/nonexistent"], kvm, "k" * 64)[0] is True
    assert not list(kvm.glob("*.log"))


def test_a_kvm_error_or_an_end_is_a_no_with_the_reason(kvm: Path) -> None:
    assert says(kvm, "KVM internal error. Suberror: 1", 60) == (False, "KVM internal error")
    (kvm / f"kvm-{'k' * 32}.json").unlink()
    assert says(kvm, "error: failed to set MSR 0x10a") == (False, "QEMU ended: error: failed to set MSR 0x10a")


def test_silence_is_a_no(kvm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PROBE_TIMEOUT_S", 0.5)
    assert says(kvm, "(XEN) still booting", 60)[0] is False
