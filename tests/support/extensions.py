"""Extension images made by hand, brought through fetch, unpack and conversion."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import extension, fetch, unpack
from pipeline.env import Env
from pipeline.extension.facts import PREFIX
from pipeline.extension.model import ExtensionResult
from support.modules import module_of
from support.tars import Image, image_of, tar_of, write_layout

RELEASE = "6.1.0-test"
VERMAGIC = f"{RELEASE} SMP preempt mod_unload "


def module(name: str, *, depends: str = "", vermagic: str = VERMAGIC) -> bytes:
    """A kernel module file that says what the host reads of it."""
    return module_of("license=GPL", f"depends={depends}", f"name={name}", f"vermagic={vermagic}")


def extension_image(
    tree: Mapping[str, Any], *, labels: bool = False, architecture: str = "amd64", split: bool = False, **facts: str
) -> Image:
    """An image of a `tar_of` tree that says these facts, as manifest annotations or as labels of its config.

    split:   every name in a layer of its own.
    """
    said = {PREFIX + key: value for key, value in ({"abi": "1"} | facts).items()}
    tars = [tar_of({name: value}) for name, value in tree.items()] if split else [tar_of(tree)]
    config = {"config": {"Labels": said}} if labels else {}
    image = image_of(*tars, config=config, architecture=architecture)
    if not labels:
        image.manifest = json.dumps(json.loads(image.manifest) | {"annotations": said}).encode()
    return image


def converted(env: Env, directory: Path, name: str, image: Image) -> ExtensionResult:
    """The image, put into a layout of its own and converted; its reference is oci:DIRECTORY/NAME:x."""
    layout = write_layout(directory / name, {"x": image})
    fetched = fetch.run(fetch.FetchParams(f"oci:{layout}:x"), env)
    unpacked = unpack.run(unpack.UnpackParams(fetched), env)
    return extension.run(extension.ExtensionParams(fetched, unpacked), env)


def program(says: str, then: str) -> bytes:
    """A static x86-64 program of a few bytes: it writes a line to descriptor 1 and becomes `then`.

    As `rdinit=` of a zone it shows that the kernel has unpacked the segment it is in, before there is any init.
    """
    message, path = says.encode() + b"\n", then.encode() + b"\0"
    code = [
        (b"\xb8\x01\0\0\0\xbf\x01\0\0\0\x48\x8d\x35", "message"),  # mov eax, 1; mov edi, 1; lea rsi, [rip + message]
        (b"\xba" + len(message).to_bytes(4, "little") + b"\x0f\x05\x48\x8d\x3d", "path"),  # write(1, …); lea rdi, …
        # argv[0] = path; rsi = argv; rdx = argv + argc + 1; execve
        (b"\x48\x89\x7c\x24\x08\x48\x8d\x74\x24\x08\x48\x8b\x0c\x24\x48\x8d\x54\xce\x08\xb8\x3b\0\0\0\x0f\x05", ""),
        (b"\xb8\x3c\0\0\0\xbf\x01\0\0\0\x0f\x05", ""),  # exit(1): the exec came back
    ]
    size = sum(len(part) + 4 * bool(name) for part, name in code)
    at = {"message": size, "path": size + len(message)}
    text = b""
    for part, name in code:
        text += part
        text += (at[name] - len(text) - 4).to_bytes(4, "little") if name else b""
    text += message + path
    vaddr, offset = 0x400000, 64 + 56
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, vaddr + offset, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    whole = offset + len(text)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, vaddr, vaddr, whole, whole, 4096) + text
