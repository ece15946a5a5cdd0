"""Where files' data lies in an image: each file's own bytes are found there, whatever it shares with others."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.squashfs.blocks import NO_FRAGMENT, UNCOMPRESSED, BlockWriter, Piece
from pipeline.squashfs.twins import Twins

BLOCK = 4096


def read_back(files: Sequence[bytes], tmp_path: Path, threads: int) -> list[bytes]:
    """Write files, uncompressed, and read each as a kernel would."""
    (tmp_path / "input").write_bytes(b"".join(files))
    with open(tmp_path / "input", "rb") as source, open(tmp_path / "image", "wb+") as image:
        with BlockWriter(image.fileno(), 96, lambda: lambda data: None, threads=threads, block_bytes=BLOCK) as writer:
            stored, begin = [], 0
            for data in files:
                steps = range(begin, begin + len(data), BLOCK)
                begin += len(data)
                blocks = [(Piece(source.fileno(), at, min(BLOCK, begin - at)),) for at in steps]
                stored.append(writer.add(len(data), blocks))
            writer.finish()
        written = (tmp_path / "image").read_bytes()
    found = []
    for file in stored:
        assert file.ready
        data, at = b"", file.blocks_start
        for word in file.blocks:
            size = word & ~UNCOMPRESSED
            data += written[at : at + size] or bytes(BLOCK)
            at += size
        if file.fragment != NO_FRAGMENT:
            begin = writer.fragments[file.fragment][0] + file.fragment_offset
            data += written[begin : begin + file.size_bytes % BLOCK]
        found.append(data)
    return found


@pytest.mark.parametrize("threads", [1, 2])
def test_block_of_tails_sent_off_by_a_file_with_a_twin_is_not_taken_back_with_the_twins_blocks(
    tmp_path: Path, threads: int
) -> None:
    noise = random.Random(1).randbytes
    twin, tails = noise(BLOCK), noise(3000)
    files = [
        *(tails[:1000], tails[1000:]),
        twin + noise(2000),  # its tail does not fit: the block of `tails` follows its own
        noise(2000),
        *(tails[:1500], tails[1500:]),  # an equal block of tails
        twin + noise(3000),  # which follows this one's block too
        noise(BLOCK),
        noise(BLOCK),  # what is written over what was taken back
    ]
    assert read_back(files, tmp_path, threads) == files


@pytest.mark.parametrize("seed", range(8))
def test_files_of_few_different_blocks_and_tails_come_back_whole(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    blocks = [bytes(BLOCK), *(rng.randbytes(BLOCK) for _ in range(3))]
    tails = [b"", *(rng.randbytes(size) for size in (1, 700, 1000, 1000, 2048, 3000))]
    files = [b"".join(rng.choices(blocks, k=rng.randrange(4))) + rng.choice(tails) for _ in range(200)]
    files += [noise + tail for noise in blocks[:2] for tail in tails]
    assert read_back(files, tmp_path, 2) == files


@pytest.mark.parametrize("block_bytes", [6000, 8192], ids=["blocks", "tails"])
def test_files_of_equal_heads_are_not_compared_with_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    """That would take the square of their number."""
    compared = []
    monkeypatch.setattr(BlockWriter, "_equal", lambda *places: compared.append(places))

    monkeypatch.setattr("pipeline.squashfs.blocks.WINDOW_BYTES", 0)  # else tails are read many at once
    reads: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: reads.append(at) or pread(fd, size, at))
    size = 6000
    files = [bytes(size - 8) + number.to_bytes(8, "big") for number in range(1, 41)]
    (tmp_path / "input").write_bytes(b"".join(files))
    with (
        open(tmp_path / "input", "rb") as source,
        open(tmp_path / "image", "wb+") as image,
        BlockWriter(image.fileno(), 96, lambda: lambda data: None, threads=1, block_bytes=block_bytes) as writer,
    ):
        for number in range(len(files)):
            steps = range(number * size, (number + 1) * size, block_bytes)
            writer.add(
                size, [(Piece(source.fileno(), at, min(block_bytes, (number + 1) * size - at)),) for at in steps]
            )
        writer.finish()
    assert compared == []
    # Each once, and for the hash: of a tail only the first is read again, of a file's blocks each.
    assert len(reads) == len(files) + (1 if block_bytes > size else len(files))


def test_what_differs_in_its_key_is_never_hashed() -> None:
    hashed: list[object] = []

    def note(value: object) -> bytes:
        hashed.append(value)
        return repr(value).encode()

    twins: Twins[int] = Twins(note)
    for number in range(5):
        twins.like(number, lambda: note("new")).append(number)
    assert hashed == []
    assert twins.like(3, lambda: note(3)) == [3]
    assert hashed == [3, 3], "the one there was, and the new one"
    assert twins.like(3, lambda: note("other")) == []
    assert hashed == [3, 3, "other"], "what was hashed once is not hashed again"
