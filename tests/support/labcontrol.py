"""ControlService of the lab's zoned, as any client of Edera's API reaches it, and an image to put into its zones."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from runtime.host.api import control_pb2 as pb
from runtime.host.lab.lab import Lab
from support import zoneparts
from support.grpcclient import Stub
from support.tars import image_of, write_layout

PASSWD = "root:x:0:0::/:/bin/sh\nweb:x:33:33::/:/bin/sh\n"


@contextmanager
def control_of(lab: Lab) -> Iterator[Any]:
    """A grpcio stub over TLS."""
    endpoint = lab.endpoint()
    files = endpoint.credentials
    credentials = grpc.ssl_channel_credentials(
        files.ca.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
    )
    with grpc.secure_channel(f"{endpoint.host}:{endpoint.port}", credentials) as channel:
        yield Stub(channel, pb.DESCRIPTOR.services_by_name["ControlService"])


def import_shell(control: Any, directory: Path, *more: str) -> str:
    """The digest of an image with a shell and more programs, whose user is web; imported."""
    root = zoneparts.small_root(directory / "root", ("sh", "id", *more))
    (root / "etc" / "passwd").write_text(PASSWD)
    tree = io.BytesIO()
    with tarfile.open(fileobj=tree, mode="w") as tar:
        tar.add(root, ".", filter=_owned_by_root)
    made = image_of(tree.getvalue(), config={"config": {"User": "web"}})
    layout = write_layout(directory / "layout", {"t": made})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(layout, ".")
    data = out.getvalue()

    def requests() -> Iterator[pb.ImportImageRequest]:
        yield pb.ImportImageRequest(image="example.org/shell:v1")
        for at in range(0, len(data), 1 << 20):
            yield pb.ImportImageRequest(chunk=data[at : at + (1 << 20)], last_chunk=at + (1 << 20) >= len(data))

    *_, last = control.ImportImage(requests(), timeout=300)
    return str(last.spec.digest)


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    return member
