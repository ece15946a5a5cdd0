"""Make the *_pb2.py and *_grpc.py of this folder: `python -m runtime.host.api.generate [DIRECTORY]`.

What it makes is committed, so that only whoever changes a .proto needs grpcio-tools.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[2]


def generate(directory: Path = PROJECT) -> None:
    """Write the modules of every .proto below `directory`, in the same folders as here. Raises RuntimeError."""
    import grpc_tools
    from grpc_tools import protoc

    google = Path(grpc_tools.__file__).with_name("_proto")  # the types protobuf itself comes with
    protos = sorted(HERE.glob("*.proto"))
    services = [path for path in protos if "\nservice " in path.read_text()]
    with tempfile.TemporaryDirectory() as scratch:
        # Not the plugin's own script, which knows the place its environment was made at.
        plugin = Path(scratch) / "plugin"
        code = "from grpclib.plugin.main import main; main()"
        plugin.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c '{code}'\n")
        plugin.chmod(0o700)
        for kind, files in (("python", protos), ("pyi", protos), ("grpclib_python", services)):
            options = [f"-I{PROJECT}", f"-I{google}", f"--plugin=protoc-gen-grpclib_python={plugin}"]
            names = [path.relative_to(PROJECT).as_posix() for path in files]
            if protoc.main(["protoc", *options, f"--{kind}_out={directory}", *names]) != 0:
                raise RuntimeError("protoc failed; it has said why")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT)
