"""`zone image`: images without any zone, by reference or by what the store has."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from runtime.host.terminal import command, with_progress, write


def add_to(commands: Any) -> None:
    """Add `image` and its commands to the command line."""
    image = command(commands, "image", "Work with images, without any zone.")
    image_commands = image.add_subparsers(metavar="COMMAND", required=True)
    pack = command(image_commands, "pack", "Turn an image into one file a kernel can mount.", run=_image_pack)
    pack.add_argument("reference", metavar="REF", help="docker://HOST/REPO:TAG, oci:DIR:TAG, recipe:NAME")
    pack.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="where to write it")
    pack.add_argument("--format", default="squashfs", metavar="F", help="squashfs (default)")
    pack.add_argument("--compression", default="zstd-3", metavar="C", help="zstd-N, small, gzip, lz4 (default: zstd-3)")
    pack.add_argument("--platform", default="linux/amd64", metavar="P", help="OS/ARCH[/VARIANT] (default: linux/amd64)")


def _image_pack(arguments: argparse.Namespace) -> None:
    from pipeline.env import open_env
    from pipeline.pack import pack_image

    def pack(progress: Any) -> Any:
        return pack_image(
            arguments.reference,
            arguments.output,
            compression=arguments.compression,
            format=arguments.format,
            platform=arguments.platform,
            env=open_env(progress),
        )

    write(f"{with_progress(pack)}\n")
