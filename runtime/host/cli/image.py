"""`zone image`: images without any zone, by reference or by what the store has."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import Any

from runtime.host.cli.parsers import Parser, below, command, complete, format_argument, quiet_argument
from runtime.host.cli.terminal import NotShown, escaped, with_progress, write

REFERENCES = """\
REF is a reference: docker://HOST/REPO[:TAG][@DIGEST] (the transport may be left out), oci:DIR[:TAG],
oci-archive:FILE[:TAG], docker-archive:FILE[:TAG], recipe:NAME.
"""
STORED = """\
REF is what the store has: a name as `zone image ls` shows it, a digest or its beginning; or a reference:
docker://HOST/REPO[:TAG][@DIGEST], oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:TAG], recipe:NAME.
With docker:// written out the registry is asked; without it the store is looked at first.
"""

EXAMPLES = {
    "pull": """\
examples:
  zone image pull nginx                                      docker.io/library/nginx:latest
  zone image pull docker://127.0.0.1:5000/nginx:1 --platform linux/arm64
  zone image pull -q docker://127.0.0.1:5000/nginx@sha256:…  needs no network once it is there
  zone image pull --offline 127.0.0.1:5000/nginx:1           what the tag meant when it was last pulled
""",
    "pack": """\
examples:
  zone image pack docker://127.0.0.1:5000/nginx:1 -o nginx.squashfs
  zone image pack oci:build/image:latest -o rootfs.squashfs --compression small
  zone image pack recipe:nginx -o nginx.tar --format tar
""",
    "ls": """\
examples:
  zone image ls
  zone image ls -q
  zone image ls --format json | jq -r '.[] | select(.kind == "image") | .name'
""",
    "inspect": """\
examples:
  zone image inspect docker://127.0.0.1:5000/nginx:1         downloads no layer
  zone image inspect recipe/nginx --format json
  zone image inspect sha256:6df8c982ff4d --files
  zone image inspect nginx.squashfs                          a file that pack made
""",
    "verify": """\
examples:
  zone image verify recipe/nginx
  zone image verify docker://127.0.0.1:5000/nginx:1
""",
    "rm": """\
examples:
  zone image rm 127.0.0.1:5000/nginx:1 oci:/srv/image:latest
  zone image rm sha256:6df8c982ff4d                          every name of that image
""",
    "diff": """\
examples:
  zone image diff docker://127.0.0.1:5000/nginx:1 docker://127.0.0.1:5000/nginx:2
  zone image diff recipe/nginx oci:build/image:latest --format json
  zone image diff --exit-code nginx:1 nginx:2 > changes.txt  exits 1 where something changed, as git diff does
""",
}


def fill_image(parser: Parser) -> None:
    """`image` and its commands."""
    images = below(parser)
    _add(images, "pull", "Bring an image into the store, named; prints its manifest's digest.", _pull, _fill_pull)
    _add(images, "pack", "Turn an image into one file a kernel can mount; prints the file's digest.", _pack, _fill_pack)
    _add(images, "ls", "List the names of the store: images, recipes, kernels, zones.", _ls, _fill_ls)
    _add(
        images,
        "inspect",
        "Show what an image says about itself; no layer is downloaded.",
        _inspect,
        _fill_inspect,
    )
    _add(images, "verify", "Hash every object of an image; exits 1 naming each damaged one.", _verify, _fill_verify)
    _add(images, "rm", "Take names away; blobs nothing else needs go with `zone store gc`.", _rm, _fill_rm)
    _add(
        images,
        "diff",
        "Show what changed from one image to another, by path; exits 0 either way.",
        _diff,
        _fill_diff,
    )


def _add(images: Any, name: str, text: str, run: Any, fill: Any) -> None:
    words = {"pull": REFERENCES, "ls": ""}.get(name, STORED)
    command(images, name, text, run=run, epilog=f"{words}\n{EXAMPLES[name]}", fill=fill)


def _fill_pull(pull: Parser) -> None:
    _reference(pull, "what to pull")
    quiet_argument(pull, "no progress")
    _where(pull)


def _fill_pack(pack: Parser) -> None:
    _reference(pack, "what to pack")
    output = pack.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="where to write it")
    complete(output, "files")
    pack.add_argument("--format", default="squashfs", metavar="F", help="squashfs (default), erofs or tar")
    pack.add_argument(
        "--compression", default="", metavar="C", help="zstd-N, small, gzip, lz4; tar: none, gzip, zstd-N"
    )
    quiet_argument(pack, "no progress")
    _where(pack)


def _fill_ls(ls: Parser) -> None:
    format_argument(ls)
    quiet_argument(ls, "names alone")


def _fill_inspect(inspect: Parser) -> None:
    _reference(inspect, "what to look at; or a squashfs file")
    inspect.add_argument("--files", action="store_true", help="list the files of the merged image instead")
    format_argument(inspect)
    _where(inspect)


def _fill_verify(verify: Parser) -> None:
    _reference(verify, "what to verify")
    format_argument(verify)
    quiet_argument(verify, "say nothing of what is good")
    _where(verify)


def _fill_rm(rm: Parser) -> None:
    names = rm.add_argument(
        "names", metavar="REF", nargs="+", help="a name as ls shows it, or a digest for all of its names"
    )
    complete(names, "images")


def _fill_diff(diff: Parser) -> None:
    complete(diff.add_argument("left", metavar="A", help="from this image"), "images")
    complete(diff.add_argument("right", metavar="B", help="to this one"), "images")
    diff.add_argument("--mtime", action="store_true", help="times of modification count too")
    diff.add_argument("--exit-code", action="store_true", help="exit 1 where the images differ")
    format_argument(diff)
    quiet_argument(diff, "the count alone")
    _where(diff)


def _reference(parser: Parser, text: str) -> None:
    complete(parser.add_argument("reference", metavar="REF", help=text), "images")


def _where(parser: Parser) -> None:
    """Which image of an index, and where its blobs may come from."""
    parser.add_argument("--platform", default="", metavar="P", help="OS/ARCH[/VARIANT] (default: linux/amd64)")
    parser.add_argument("--offline", action="store_true", help="open no socket")
    parser.add_argument("--cache", default="", metavar="REF", help="docker://HOST/REPO: results other hosts made")


def _env(arguments: argparse.Namespace, progress: Any) -> Any:
    from pipeline.env import open_env

    return open_env(progress, offline=arguments.offline, cache=arguments.cache)


def _working(arguments: argparse.Namespace, work: Any) -> Any:
    """`work(env)` with progress, unless it is to be quiet."""
    from pipeline.images.errors import machine_errors

    with machine_errors():
        return with_progress(lambda progress: work(_env(arguments, progress)), quiet=getattr(arguments, "quiet", False))


def _pull(arguments: argparse.Namespace) -> None:
    from pipeline.images.pull import pull_image

    manifest = _working(arguments, lambda env: pull_image(arguments.reference, env, platform=arguments.platform))
    write(f"{manifest.digest}\n")


def _pack(arguments: argparse.Namespace) -> None:
    from pipeline.images.pack import pack

    digest = _working(arguments, lambda env: pack(arguments.reference, env, **_pack_options(arguments)))
    try:
        write(f"{digest}\n")
    except NotShown:
        with contextlib.suppress(OSError):
            os.unlink(arguments.output)  # exit 1 means that there is no file
        raise


def _pack_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "out": arguments.output,
        "format": arguments.format,
        "compression": arguments.compression,
        "platform": arguments.platform,
    }


def _ls(arguments: argparse.Namespace) -> None:
    from pipeline.images.errors import machine_errors
    from pipeline.images.listing import listing
    from pipeline.store import Store
    from runtime.host.cli.show_image import show_listing

    with machine_errors():
        found = listing(Store())
    show_listing(found, format=arguments.format, quiet=arguments.quiet)


def _inspect(arguments: argparse.Namespace) -> None:
    from pipeline.images.errors import machine_errors
    from pipeline.images.inspect import check_no_file, inspect_image, inspect_squashfs, is_squashfs
    from runtime.host.cli.show_image import show_files, show_image, show_squashfs

    path = Path(arguments.reference)
    if is_squashfs(path):
        with machine_errors():
            facts = inspect_squashfs(path)
        show_squashfs(facts, format=arguments.format)
        return
    check_no_file(arguments.reference)
    if arguments.files:
        from pipeline.images.files import files_of

        entries = _working(arguments, lambda env: files_of(arguments.reference, env, platform=arguments.platform))
        show_files(entries, format=arguments.format)
    else:
        found = _working(arguments, lambda env: inspect_image(arguments.reference, env, platform=arguments.platform))
        show_image(found, format=arguments.format)


def _verify(arguments: argparse.Namespace) -> None:
    from pipeline.images.verify import verify_image
    from runtime.host.cli.show_image import show_verified

    found = _working(arguments, lambda env: verify_image(arguments.reference, env, platform=arguments.platform))
    if not arguments.quiet:
        show_verified(found, format=arguments.format)
    if found.damaged:
        raise found.error()


def _rm(arguments: argparse.Namespace) -> None:
    from pipeline.images.errors import machine_errors
    from pipeline.images.names import shown_name
    from pipeline.images.pull import untag
    from pipeline.store import Store

    with machine_errors():
        names = untag(arguments.names, Store())
    write("".join(f"untagged {escaped(shown_name(name))}\n" for name in names))


def _diff(arguments: argparse.Namespace) -> int:
    from pipeline.env import healing
    from pipeline.images.diff import diff_images
    from pipeline.images.pull import image_of
    from pipeline.layers import Spools
    from runtime.host.cli.show_image import show_difference

    def compare(env: Any) -> Any:
        images = [image_of(text, env, platform=arguments.platform) for text in (arguments.left, arguments.right)]
        with Spools(env.store, env.config.limits) as spools:
            found = diff_images(images[0], images[1], env, spools, mtime=arguments.mtime)
            return found, list(found.changes), images

    found, changes, images = _working(arguments, lambda env: healing(env, lambda: compare(env)))
    show_difference(found, changes, images, format=arguments.format, quiet=arguments.quiet)
    return 1 if arguments.exit_code and not found.equal else 0
