"""Workloads: images that run in a zone which is there already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pipeline.errors import StoreDamaged
from pipeline.oci import Descriptor
from runtime.host.api import common_pb2
from runtime.host.api import control_pb2 as pb
from runtime.host.daemon.errors import BadRequest, UnknownZone
from runtime.host.daemon.model import WorkloadInfo, WorkloadRequest
from runtime.host.images import catalog
from runtime.host.images.model import Format, Packed
from runtime.host.serve.control import messages, workloadspec
from runtime.host.serve.control.context import Context
from runtime.host.serve.control.methods import streaming, unary

DEFAULT_STOP_TIMEOUT_S = 10


class WorkloadMethods:
    """Of ControlService."""

    _context: Context

    @unary
    async def CreateWorkload(self, request: pb.CreateWorkloadRequest) -> pb.CreateWorkloadReply:
        spec = request.spec
        name = spec.name = workloadspec.name_of(spec)
        if spec.image.format not in (common_pb2.OCI_IMAGE_FORMAT_UNKNOWN, common_pb2.OCI_IMAGE_FORMAT_SQUASHFS):
            got = common_pb2.OciImageFormat.Name(spec.image.format)
            raise BadRequest("workload spec: image.format", expected="OCI_IMAGE_FORMAT_SQUASHFS", got=got)
        zone = await self._context.manager.get(spec.zone_id)
        packed, config, passwd, group = await asyncio.to_thread(self._image, spec.image.digest)
        workload = await self._context.manager.create_workload(
            WorkloadRequest(
                name=name,
                zone=zone.id,
                rootfs=packed.rootfs,
                container=workloadspec.container(spec, name, config, passwd=passwd, group=group),
                image=str(packed.digest),
                mounts=workloadspec.mounts(spec),
                annotations={annotation.key: annotation.value for annotation in spec.annotations},
                labels=messages.spec_label(spec),
            )
        )
        return pb.CreateWorkloadReply(workload_id=workload.id)

    def _image(self, digest: str) -> tuple[Packed, Any, bytes, bytes]:
        store = self._context.store
        packed = catalog.find(store, digest, Format.SQUASHFS)
        store.keep(packed.rootfs.digest)

        def read(blob: Descriptor | None) -> bytes:
            return b"" if blob is None else store.read(blob.digest)

        if not store.has(packed.rootfs):
            raise StoreDamaged(f"image {packed.digest.short}", got="its file system is gone", hint="pull it again")
        return packed, store.read_json(packed.config.digest), read(packed.passwd), read(packed.group)

    @unary
    async def StartWorkload(self, request: pb.StartWorkloadRequest) -> pb.StartWorkloadReply:
        await self._context.manager.start_workload(request.workload_id)
        return pb.StartWorkloadReply()

    @unary
    async def StopWorkload(self, request: pb.StopWorkloadRequest) -> pb.StopWorkloadReply:
        timeout_s = request.timeout or self._stop_timeout_s(request.workload_id)
        await self._context.manager.stop_workload(request.workload_id, timeout_s)
        return pb.StopWorkloadReply()

    def _stop_timeout_s(self, ref: str) -> float:
        process = self._context.manager.get_workload(ref).request.container.get("process", {})
        return float(process.get("stop_timeout_s", DEFAULT_STOP_TIMEOUT_S))

    @unary
    async def DestroyWorkload(self, request: pb.DestroyWorkloadRequest) -> pb.DestroyWorkloadReply:
        await self._context.manager.destroy_workload(request.workload_id)
        return pb.DestroyWorkloadReply()

    @unary
    async def GetWorkload(self, request: pb.GetWorkloadRequest) -> pb.GetWorkloadReply:
        workload = self._context.manager.get_workload(request.workload_id)
        return pb.GetWorkloadReply(workload=messages.workload_message(workload))

    @streaming
    async def ListWorkloads(self, request: pb.ListWorkloadsRequest) -> AsyncIterator[pb.ListWorkloadsReply]:
        workloads = self._context.manager.list_workloads()
        yield pb.ListWorkloadsReply(workloads=[messages.workload_message(workload) for workload in workloads])

    @unary
    async def ResolveWorkloadId(self, request: pb.ResolveWorkloadIdRequest) -> pb.ResolveWorkloadIdReply:
        found = self._resolve_workload(request.name)
        return pb.ResolveWorkloadIdReply(workload_id=found[0].id if found else "")

    @unary
    async def ResolveWorkloadIds(self, request: pb.ResolveWorkloadIdsRequest) -> pb.ResolveWorkloadIdsReply:
        found = self._resolve_workload(request.name)
        return pb.ResolveWorkloadIdsReply(workload_ids=[workload.id for workload in found])

    def _resolve_workload(self, name: str) -> list[WorkloadInfo]:
        """By name, of which there may be one in each zone; else by id or the start of one."""
        named = [workload for workload in self._context.manager.list_workloads() if workload.name == name]
        if named:
            return named
        try:
            return [self._context.manager.get_workload(name)]
        except UnknownZone:
            return []
