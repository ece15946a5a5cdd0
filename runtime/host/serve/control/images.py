"""Images: pulled, imported, listed, removed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import IO, Any

from pipeline.fetch.errors import NoSuchImage
from pipeline.images.errors import machine_errors
from runtime.host.api import common_pb2
from runtime.host.api import control_pb2 as pb
from runtime.host.daemon.errors import BadRequest
from runtime.host.images import catalog
from runtime.host.images.account import hand_over
from runtime.host.images.model import ImportWork, Packed, Progress, PullWork, Work
from runtime.host.serve.answers import next_request, request_of
from runtime.host.serve.control import imagemessages
from runtime.host.serve.control.context import Context
from runtime.host.serve.control.methods import joined, streaming, unary


class ImageMethods:
    """Of ControlService."""

    _context: Context

    @streaming
    async def PullImage(self, request: pb.PullImageRequest) -> AsyncIterator[pb.PullImageReply]:
        if not request.image:
            raise BadRequest("image", expected="a reference", got="none")
        work = PullWork(
            request.image,
            imagemessages.format_of(request.format),
            update=request.update,
            overwrite=request.overwrite_cache,
            credentials=imagemessages.credentials(request.auth),
        )
        async with contextlib.aclosing(self._work(work, metadata=request.want_metadata)) as replies:
            async for fields in replies:
                yield pb.PullImageReply(**fields)

    @joined
    async def ImportImage(self, stream: Any) -> None:
        """The first request says what comes; if it is not there yet, an archive follows, and is then packed."""
        first = await request_of(stream)
        format = imagemessages.format_of(first.format)
        there = None if first.overwrite_cache else await asyncio.to_thread(self._there, first)
        if there is not None:
            fields = await self._result(there, metadata=first.want_metadata)
            await stream.send_message(pb.ImportImageReply(accepted=False, **fields))
            return
        await stream.send_message(pb.ImportImageReply(accepted=True))
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(self._context.store.scratch())
            archive = directory / "archive.tar"
            with machine_errors(), open(archive, "xb") as file:
                await _receive(stream, first, file)
            hand_over(self._context.store.root, directory, archive)
            work = ImportWork(str(archive), first.image, first.digest, format, first.overwrite_cache)
            async with contextlib.aclosing(self._work(work, metadata=first.want_metadata)) as replies:
                async for fields in replies:
                    await stream.send_message(pb.ImportImageReply(accepted=True, **fields))

    @unary
    async def RemoveImage(self, request: pb.RemoveImageRequest) -> pb.RemoveImageReply:
        every = request.format == common_pb2.OCI_IMAGE_FORMAT_UNKNOWN
        format = None if every else imagemessages.format_of(request.format)
        removed = await asyncio.to_thread(catalog.remove, self._context.store, request.digest, format)
        return pb.RemoveImageReply(removed=removed)

    @streaming
    async def ListImages(self, request: pb.ListImagesRequest) -> AsyncIterator[pb.ListImagesReply]:
        store = self._context.store

        def images() -> list[common_pb2.OciImageInfo]:
            return [imagemessages.info_message(store, entry) for entry in catalog.entries(store)]

        yield pb.ListImagesReply(images=await asyncio.to_thread(images))

    def _there(self, first: pb.ImportImageRequest) -> Packed | None:
        """The image that is to be imported, if it is here already and its digest was said. Raises BadDigest."""
        if not first.digest:
            return None
        try:
            return catalog.find(self._context.store, first.digest, imagemessages.format_of(first.format))
        except NoSuchImage:
            return None

    async def _work(self, work: Work, *, metadata: bool) -> AsyncGenerator[dict[str, Any], None]:
        """The fields of each reply: progress, and at last the image."""
        async with contextlib.aclosing(self._context.tasks.follow(work)) as news:
            async for found in news:
                if isinstance(found, Progress):
                    yield {"progress": imagemessages.progress_message(found)}
                elif isinstance(found, Packed):
                    yield await self._result(found, metadata=metadata)

    async def _result(self, packed: Packed, *, metadata: bool) -> dict[str, Any]:
        fields: dict[str, Any] = {"spec": imagemessages.spec_message(packed)}
        if metadata:
            fields["metadata"] = await asyncio.to_thread(imagemessages.metadata_message, self._context.store, packed)
        return fields


async def _receive(stream: Any, first: pb.ImportImageRequest, file: IO[bytes]) -> None:
    """Write the archive, until its last chunk. Raises BadRequest where the client stops before."""
    request = first
    while True:
        if request.chunk:
            await asyncio.to_thread(file.write, request.chunk)
        if request.last_chunk:
            return
        if (following := await next_request(stream)) is None:
            raise BadRequest("archive", expected="a last chunk", got="the end of the requests")
        request = following
