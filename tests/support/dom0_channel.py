"""Runs inside dom0, by hand or from a lab test: hvc1 of real zones whose only program echoes what comes.

    python3 dom0_channel.py KERNEL KERNEL_BYTES CASE

Only the standard library and what runtime.boot brings; PYTHONPATH names where that is. Reports as JSON lines.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from io import BytesIO
from pathlib import Path
from typing import Any

from pipeline import newc
from runtime.boot import build, domain, doors, elf, plan, teardown, xenstore
from runtime.boot.attend import LoopAttendant
from runtime.boot.model import DomainSpec, FileRange

DIRECTORY = Path(tempfile.gettempdir())
LEDGER = DIRECTORY / "dom0-channel.ledger"
INITRD = DIRECTORY / "dom0-channel.initrd"
ECHO = """#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
exec 3<>/dev/hvc1
busybox stty raw -echo <&3
echo "echo begins" >/dev/console
exec busybox cat <&3 >&3
"""
FLOOD = """#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
echo "flood begins" >/dev/console
exec busybox dd if=/dev/zero of=/dev/hvc0 bs=4096 count=1000000
"""


def write_initrd(path: Path, script: str) -> FileRange:
    entries = [
        newc.directory("bin"),
        newc.directory("dev"),
        newc.char_device("dev/console", 5, 1),
        newc.file("bin/busybox", Path("/usr/bin/busybox"), mode=0o755),
        newc.file("init", script.encode(), mode=0o755),
    ]
    out = BytesIO()
    newc.write(entries, out)
    path.write_bytes(out.getvalue())
    return FileRange(str(path), path.stat().st_size)


class Link:
    """A receiver that waits for bytes."""

    def __init__(self, channel: Any) -> None:
        self.channel, self.got, self.news = channel, bytearray(), asyncio.Event()
        self.up, self.waiting = asyncio.Event(), b""
        channel.start(self)

    def connected(self) -> None:
        self.up.set()

    def received(self, data: bytes) -> None:
        self.got += data
        self.news.set()

    def writable(self) -> None:
        self.waiting = self.waiting[self.channel.write(self.waiting) :]

    def disconnected(self, reason: str) -> None:
        raise AssertionError(reason)

    def write(self, data: bytes) -> None:
        self.waiting += data
        self.writable()

    async def read(self, count: int, timeout_s: float = 300) -> bytes:
        async with asyncio.timeout(timeout_s):
            while len(self.got) < count:
                self.news.clear()
                await self.news.wait()
        taken = bytes(self.got[:count])
        del self.got[:count]
        return taken

    async def echoed(self, size: int, *, word: bytes = b"") -> float:
        """Send, and have the same come back; seconds."""
        data, started = word or os.urandom(size), time.monotonic()
        self.write(data)
        back = await self.read(len(data))
        if hashlib.sha256(back).digest() != hashlib.sha256(data).digest():
            raise AssertionError(f"{len(data)} bytes came back as others")
        return time.monotonic() - started


class Case:
    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.kernel = FileRange(words[0], int(words[1]))
        self.info = elf.read_kernel(self.kernel)
        self.hypervisor, self.xenstore = doors.open_doors(), xenstore.XenStore()

    def build(self, name: str, script: str, attendant: Any, record: Any = lambda kind, **fields: None) -> Any:
        spec = DomainSpec(
            name=name,
            uuid=str(uuid.uuid4()),
            kernel=self.kernel,
            ramdisk=(write_initrd(INITRD, script),),
            memory_mib=128,
            cmdline="console=hvc0 quiet panic=-1 mitigations=off cryptomgr.notests",
        )
        log = DIRECTORY / f"dom0-channel-{name}.log"
        log.unlink(missing_ok=True)
        planned = plan.plan_domain(spec, self.info)
        return build.build_domain(planned, self.hypervisor, self.xenstore, record, console_log=log, attendant=attendant)

    def left(self) -> dict[str, Any]:
        return {
            "domains": [info.domid for info in self.hypervisor.domains()],
            "homes": self.xenstore.children("/local/domain"),
            "consoles": self.xenstore.children("/local/domain/0/backend/console"),
        }

    def say(self, **fields: Any) -> None:
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()

    # -- cases

    async def echo(self, attendant: Any) -> None:
        """A megabyte comes back as it went; how long a word takes, and how many bytes go in a second."""
        built = self.build("echo", ECHO, attendant)
        try:
            built.unpause()
            link, started = Link(built.channel), time.monotonic()
            await asyncio.wait_for(link.up.wait(), 120)
            connected = time.monotonic() - started
            # Before the program has made its terminal raw, an echo would be of the terminal's own kind.
            while "echo begins" not in built.console.tail():
                await asyncio.sleep(0.05)
            trips = sorted([await link.echoed(64) for _ in range(100)])
            whole = await link.echoed(1 << 20)
            spread = {f"trip_{part}_s": trips[part] for part in (0, 50, 90, 99)}
            self.say(connected_s=connected, megabyte_there_and_back_s=whole, **spread)
        finally:
            await asyncio.to_thread(built.destroy)

    async def killed(self, attendant: Any) -> None:
        """kill -9 of the process that serves hvc1, amid bytes; the next one goes on with the same guest."""
        LEDGER.unlink(missing_ok=True)
        child = subprocess.Popen([sys.executable, __file__, *self.words[:2], "victim"], stdout=subprocess.PIPE)
        assert child.stdout is not None
        while b"amid" not in child.stdout.readline():
            assert child.poll() is None
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        records = [json.loads(line) for line in LEDGER.read_text().splitlines()]
        started = time.monotonic()
        adopted = await asyncio.to_thread(domain.adopt, records, self.hypervisor, self.xenstore, attendant=attendant)
        try:
            assert adopted is not None and adopted.channel is not None
            link = Link(adopted.channel)
            await asyncio.wait_for(link.up.wait(), 60)
            # What the killed one had written, and the guest not read or not sent, comes first: whole zeros.
            link.write(b"MARK")
            while not link.got.endswith(b"MARK"):
                link.news.clear()
                await asyncio.wait_for(link.news.wait(), 60)
            old = bytes(link.got[:-4])
            assert not old.strip(b"\0"), old[:100]
            link.got.clear()
            rebound = time.monotonic() - started
            await link.echoed(1 << 16)
            begun = adopted.console.tail(1 << 20).count("echo begins")
            assert begun == 1, begun
            self.say(rebound_s=rebound, old_bytes=len(old), records=[record["kind"] for record in records])
        finally:
            if adopted is not None:
                await asyncio.to_thread(adopted.destroy)
            await asyncio.to_thread(teardown.teardown, records, self.hypervisor, self.xenstore)

    async def victim(self, attendant: Any) -> None:
        with open(LEDGER, "w", encoding="utf-8") as ledger:

            def record(kind: str, **fields: Any) -> None:
                ledger.write(json.dumps({"kind": kind, **fields}) + "\n")
                ledger.flush()
                os.fsync(ledger.fileno())

            built = self.build("victim", ECHO, attendant, record)
            built.unpause()
            link = Link(built.channel)
            await asyncio.wait_for(link.up.wait(), 120)
            while "echo begins" not in built.console.tail():
                await asyncio.sleep(0.05)
            link.write(bytes(1 << 20))
            await link.read(1 << 16)
            self.say(amid=True)
            await link.read(1 << 30)

    async def flood(self, attendant: Any) -> None:
        """A zone floods its hvc0: another's hvc1 still answers, our memory stays, its log is bounded."""
        quiet = self.build("quiet", ECHO, attendant)
        loud = None
        try:
            quiet.unpause()
            link = Link(quiet.channel)
            await asyncio.wait_for(link.up.wait(), 120)
            while "echo begins" not in quiet.console.tail():
                await asyncio.sleep(0.05)
            alone = sorted([await link.echoed(64) for _ in range(50)])
            loud = self.build("loud", FLOOD, attendant)
            loud.unpause()
            logs = (loud.console.log_path, Path(f"{loud.console.log_path}.1"))
            while not logs[1].exists():
                await asyncio.sleep(0.2)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            beside = sorted([await link.echoed(64) for _ in range(50)])
            sizes = [path.stat().st_size for path in logs]
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert max(sizes) <= 4 << 20, sizes
            spread = {f"alone_{part}_s": alone[part] for part in (0, 25, 45, 49)}
            spread |= {f"beside_{part}_s": beside[part] for part in (0, 25, 45, 49)}
            self.say(grown_kib=grown, logs=sizes, **spread)
        finally:
            for built in (quiet, loud):
                if built is not None:
                    await asyncio.to_thread(built.destroy)

    async def memory(self, attendant: Any) -> None:
        """What a channel and a console cost: the same domain's pages, mapped and bound again and again."""
        import tracemalloc

        built = self.build("memory", ECHO, attendant)
        try:
            built.unpause()
            link = Link(built.channel)
            await asyncio.wait_for(link.up.wait(), 120)
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(50):
                await asyncio.to_thread(built.channel.close)
                records = [*built.records]
                await asyncio.to_thread(built.console.close)
                built = await asyncio.to_thread(
                    domain.adopt, records, self.hypervisor, self.xenstore, attendant=attendant
                )
                link = Link(built.channel)
                await asyncio.wait_for(link.up.wait(), 60)
            self.say(
                grown_bytes=tracemalloc.get_traced_memory()[0] - before, descriptors=len(os.listdir("/proc/self/fd"))
            )
        finally:
            await asyncio.to_thread(built.destroy)

    async def run(self) -> None:
        name = self.words[2]
        attendant = LoopAttendant(asyncio.get_running_loop())
        before = self.left()
        cases = {case.__name__: case for case in (self.echo, self.killed, self.victim, self.flood, self.memory)}
        await cases[name](attendant)
        self.say(case=name, left=self.left(), before=before)


if __name__ == "__main__":
    asyncio.run(Case(sys.argv[1:]).run())
