from runtime.host.api import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ZoneKernelFdType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ZONE_KERNEL_FD_TYPE_UNKNOWN: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_FILE: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_DIRECTORY: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_IPV4_SOCK: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_IPV6_SOCK: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_IPV4_SERVSOCK: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_IPV6_SERVSOCK: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_FIFO: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_UNIX_SOCK: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_EVENT: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_UNSUPPORTED: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_SIGNALFD: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_EVENTPOLL: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_INOTIFY: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_TIMERFD: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_NETLINK: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_FILE_V2: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_BPF: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_USERFAULTFD: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_IOURING: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_MEMFD: _ClassVar[ZoneKernelFdType]
    ZONE_KERNEL_FD_TYPE_PIDFD: _ClassVar[ZoneKernelFdType]

class ZoneKernelIPProtocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ZONE_KERNEL_IP_PROTOCOL_UNKNOWN: _ClassVar[ZoneKernelIPProtocol]
    ZONE_KERNEL_IP_PROTOCOL_NA: _ClassVar[ZoneKernelIPProtocol]
    ZONE_KERNEL_IP_PROTOCOL_TCP: _ClassVar[ZoneKernelIPProtocol]
    ZONE_KERNEL_IP_PROTOCOL_UDP: _ClassVar[ZoneKernelIPProtocol]
    ZONE_KERNEL_IP_PROTOCOL_ICMP: _ClassVar[ZoneKernelIPProtocol]
    ZONE_KERNEL_IP_PROTOCOL_RAW: _ClassVar[ZoneKernelIPProtocol]
ZONE_KERNEL_FD_TYPE_UNKNOWN: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_FILE: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_DIRECTORY: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_IPV4_SOCK: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_IPV6_SOCK: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_IPV4_SERVSOCK: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_IPV6_SERVSOCK: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_FIFO: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_UNIX_SOCK: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_EVENT: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_UNSUPPORTED: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_SIGNALFD: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_EVENTPOLL: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_INOTIFY: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_TIMERFD: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_NETLINK: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_FILE_V2: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_BPF: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_USERFAULTFD: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_IOURING: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_MEMFD: ZoneKernelFdType
ZONE_KERNEL_FD_TYPE_PIDFD: ZoneKernelFdType
ZONE_KERNEL_IP_PROTOCOL_UNKNOWN: ZoneKernelIPProtocol
ZONE_KERNEL_IP_PROTOCOL_NA: ZoneKernelIPProtocol
ZONE_KERNEL_IP_PROTOCOL_TCP: ZoneKernelIPProtocol
ZONE_KERNEL_IP_PROTOCOL_UDP: ZoneKernelIPProtocol
ZONE_KERNEL_IP_PROTOCOL_ICMP: ZoneKernelIPProtocol
ZONE_KERNEL_IP_PROTOCOL_RAW: ZoneKernelIPProtocol

class GetHostStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetHostStatusReply(_message.Message):
    __slots__ = ("host_uuid", "host_domid", "protect_version", "host_ipv4", "host_ipv6", "host_mac", "hyp_free_mem")
    HOST_UUID_FIELD_NUMBER: _ClassVar[int]
    HOST_DOMID_FIELD_NUMBER: _ClassVar[int]
    PROTECT_VERSION_FIELD_NUMBER: _ClassVar[int]
    HOST_IPV4_FIELD_NUMBER: _ClassVar[int]
    HOST_IPV6_FIELD_NUMBER: _ClassVar[int]
    HOST_MAC_FIELD_NUMBER: _ClassVar[int]
    HYP_FREE_MEM_FIELD_NUMBER: _ClassVar[int]
    host_uuid: str
    host_domid: int
    protect_version: str
    host_ipv4: str
    host_ipv6: str
    host_mac: str
    hyp_free_mem: int
    def __init__(self, host_uuid: _Optional[str] = ..., host_domid: _Optional[int] = ..., protect_version: _Optional[str] = ..., host_ipv4: _Optional[str] = ..., host_ipv6: _Optional[str] = ..., host_mac: _Optional[str] = ..., hyp_free_mem: _Optional[int] = ...) -> None: ...

class GetHostCpuTopologyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetHostCpuTopologyReply(_message.Message):
    __slots__ = ("cpus",)
    CPUS_FIELD_NUMBER: _ClassVar[int]
    cpus: _containers.RepeatedCompositeFieldContainer[_common_pb2.HostCpuTopologyInfo]
    def __init__(self, cpus: _Optional[_Iterable[_Union[_common_pb2.HostCpuTopologyInfo, _Mapping]]] = ...) -> None: ...

class ListDevicesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDevicesReply(_message.Message):
    __slots__ = ("devices",)
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[_common_pb2.DeviceInfo]
    def __init__(self, devices: _Optional[_Iterable[_Union[_common_pb2.DeviceInfo, _Mapping]]] = ...) -> None: ...

class SetHostPowerManagementPolicyRequest(_message.Message):
    __slots__ = ("scheduler", "smt_awareness")
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    SMT_AWARENESS_FIELD_NUMBER: _ClassVar[int]
    scheduler: str
    smt_awareness: bool
    def __init__(self, scheduler: _Optional[str] = ..., smt_awareness: _Optional[bool] = ...) -> None: ...

class SetHostPowerManagementPolicyReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadHypervisorConsoleRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadHypervisorConsoleReply(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: str
    def __init__(self, data: _Optional[str] = ...) -> None: ...

class HypervisorDebugInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HypervisorDebugInfoReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class SnoopIdmRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SnoopIdmReply(_message.Message):
    __slots__ = ("packets", "skipped")
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    packets: _containers.RepeatedCompositeFieldContainer[SnoopIdmPacket]
    skipped: int
    def __init__(self, packets: _Optional[_Iterable[_Union[SnoopIdmPacket, _Mapping]]] = ..., skipped: _Optional[int] = ...) -> None: ...

class SnoopIdmPacket(_message.Message):
    __slots__ = ("to", "packet")
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    PACKET_FIELD_NUMBER: _ClassVar[int]
    to: str
    packet: bytes
    def __init__(self, to: _Optional[str] = ..., packet: _Optional[bytes] = ..., **kwargs) -> None: ...

class CreateNetworkReservationRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateNetworkReservationReply(_message.Message):
    __slots__ = ("reservation",)
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    reservation: _common_pb2.NetworkReservation
    def __init__(self, reservation: _Optional[_Union[_common_pb2.NetworkReservation, _Mapping]] = ...) -> None: ...

class DestroyNetworkReservationRequest(_message.Message):
    __slots__ = ("reservation_id",)
    RESERVATION_ID_FIELD_NUMBER: _ClassVar[int]
    reservation_id: str
    def __init__(self, reservation_id: _Optional[str] = ...) -> None: ...

class DestroyNetworkReservationReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListNetworkReservationsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListNetworkReservationsReply(_message.Message):
    __slots__ = ("reservations",)
    RESERVATIONS_FIELD_NUMBER: _ClassVar[int]
    reservations: _containers.RepeatedCompositeFieldContainer[_common_pb2.NetworkReservation]
    def __init__(self, reservations: _Optional[_Iterable[_Union[_common_pb2.NetworkReservation, _Mapping]]] = ...) -> None: ...

class ConfigureZoneNetworkRequest(_message.Message):
    __slots__ = ("zone_id", "config")
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    zone_id: str
    config: _common_pb2.ZoneNetworkConfig
    def __init__(self, zone_id: _Optional[str] = ..., config: _Optional[_Union[_common_pb2.ZoneNetworkConfig, _Mapping]] = ...) -> None: ...

class ConfigureZoneNetworkReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DialNetworkSocketRequest(_message.Message):
    __slots__ = ("start", "data")
    START_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    start: DialNetworkSocketStart
    data: DialNetworkSocketData
    def __init__(self, start: _Optional[_Union[DialNetworkSocketStart, _Mapping]] = ..., data: _Optional[_Union[DialNetworkSocketData, _Mapping]] = ...) -> None: ...

class DialNetworkSocketStart(_message.Message):
    __slots__ = ("zone_id", "address", "port")
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    zone_id: str
    address: str
    port: int
    def __init__(self, zone_id: _Optional[str] = ..., address: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class DialNetworkSocketData(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    def __init__(self, content: _Optional[bytes] = ...) -> None: ...

class DialNetworkSocketReply(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: DialNetworkSocketData
    def __init__(self, data: _Optional[_Union[DialNetworkSocketData, _Mapping]] = ...) -> None: ...

class PullImageRequest(_message.Message):
    __slots__ = ("image", "format", "overwrite_cache", "update", "want_metadata", "auth")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    OVERWRITE_CACHE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    WANT_METADATA_FIELD_NUMBER: _ClassVar[int]
    AUTH_FIELD_NUMBER: _ClassVar[int]
    image: str
    format: _common_pb2.OciImageFormat
    overwrite_cache: bool
    update: bool
    want_metadata: bool
    auth: _common_pb2.OciRegistryAuthentication
    def __init__(self, image: _Optional[str] = ..., format: _Optional[_Union[_common_pb2.OciImageFormat, str]] = ..., overwrite_cache: _Optional[bool] = ..., update: _Optional[bool] = ..., want_metadata: _Optional[bool] = ..., auth: _Optional[_Union[_common_pb2.OciRegistryAuthentication, _Mapping]] = ...) -> None: ...

class PullImageReply(_message.Message):
    __slots__ = ("progress", "spec", "metadata")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    progress: _common_pb2.OciImageProgress
    spec: _common_pb2.OciImageSpec
    metadata: _common_pb2.OciImageMetadata
    def __init__(self, progress: _Optional[_Union[_common_pb2.OciImageProgress, _Mapping]] = ..., spec: _Optional[_Union[_common_pb2.OciImageSpec, _Mapping]] = ..., metadata: _Optional[_Union[_common_pb2.OciImageMetadata, _Mapping]] = ...) -> None: ...

class ImportImageRequest(_message.Message):
    __slots__ = ("digest", "image", "format", "chunk", "last_chunk", "overwrite_cache", "want_metadata")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    LAST_CHUNK_FIELD_NUMBER: _ClassVar[int]
    OVERWRITE_CACHE_FIELD_NUMBER: _ClassVar[int]
    WANT_METADATA_FIELD_NUMBER: _ClassVar[int]
    digest: str
    image: str
    format: _common_pb2.OciImageFormat
    chunk: bytes
    last_chunk: bool
    overwrite_cache: bool
    want_metadata: bool
    def __init__(self, digest: _Optional[str] = ..., image: _Optional[str] = ..., format: _Optional[_Union[_common_pb2.OciImageFormat, str]] = ..., chunk: _Optional[bytes] = ..., last_chunk: _Optional[bool] = ..., overwrite_cache: _Optional[bool] = ..., want_metadata: _Optional[bool] = ...) -> None: ...

class ImportImageReply(_message.Message):
    __slots__ = ("accepted", "progress", "spec", "metadata")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    progress: _common_pb2.OciImageProgress
    spec: _common_pb2.OciImageSpec
    metadata: _common_pb2.OciImageMetadata
    def __init__(self, accepted: _Optional[bool] = ..., progress: _Optional[_Union[_common_pb2.OciImageProgress, _Mapping]] = ..., spec: _Optional[_Union[_common_pb2.OciImageSpec, _Mapping]] = ..., metadata: _Optional[_Union[_common_pb2.OciImageMetadata, _Mapping]] = ...) -> None: ...

class RemoveImageRequest(_message.Message):
    __slots__ = ("digest", "format")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    digest: str
    format: _common_pb2.OciImageFormat
    def __init__(self, digest: _Optional[str] = ..., format: _Optional[_Union[_common_pb2.OciImageFormat, str]] = ...) -> None: ...

class RemoveImageReply(_message.Message):
    __slots__ = ("removed",)
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    removed: bool
    def __init__(self, removed: _Optional[bool] = ...) -> None: ...

class ListImagesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListImagesReply(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[_common_pb2.OciImageInfo]
    def __init__(self, images: _Optional[_Iterable[_Union[_common_pb2.OciImageInfo, _Mapping]]] = ...) -> None: ...

class CreateZoneRequest(_message.Message):
    __slots__ = ("spec",)
    SPEC_FIELD_NUMBER: _ClassVar[int]
    spec: _common_pb2.ZoneSpec
    def __init__(self, spec: _Optional[_Union[_common_pb2.ZoneSpec, _Mapping]] = ...) -> None: ...

class CreateZoneReply(_message.Message):
    __slots__ = ("zone_id",)
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    zone_id: str
    def __init__(self, zone_id: _Optional[str] = ...) -> None: ...

class DestroyZoneRequest(_message.Message):
    __slots__ = ("zone_id",)
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    zone_id: str
    def __init__(self, zone_id: _Optional[str] = ...) -> None: ...

class DestroyZoneReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResolveZoneIdRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ResolveZoneIdReply(_message.Message):
    __slots__ = ("zone_id",)
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    zone_id: str
    def __init__(self, zone_id: _Optional[str] = ...) -> None: ...

class ResolveZoneIdsRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ResolveZoneIdsReply(_message.Message):
    __slots__ = ("zone_ids",)
    ZONE_IDS_FIELD_NUMBER: _ClassVar[int]
    zone_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, zone_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetZoneRequest(_message.Message):
    __slots__ = ("zone_id",)
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    zone_id: str
    def __init__(self, zone_id: _Optional[str] = ...) -> None: ...

class GetZoneReply(_message.Message):
    __slots__ = ("zone",)
    ZONE_FIELD_NUMBER: _ClassVar[int]
    zone: _common_pb2.Zone
    def __init__(self, zone: _Optional[_Union[_common_pb2.Zone, _Mapping]] = ...) -> None: ...

class ListZonesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListZonesReply(_message.Message):
    __slots__ = ("zones",)
    ZONES_FIELD_NUMBER: _ClassVar[int]
    zones: _containers.RepeatedCompositeFieldContainer[_common_pb2.Zone]
    def __init__(self, zones: _Optional[_Iterable[_Union[_common_pb2.Zone, _Mapping]]] = ...) -> None: ...

class UpdateZoneResourcesRequest(_message.Message):
    __slots__ = ("zone_id", "resources")
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    zone_id: str
    resources: _common_pb2.ZoneResourcesSpec
    def __init__(self, zone_id: _Optional[str] = ..., resources: _Optional[_Union[_common_pb2.ZoneResourcesSpec, _Mapping]] = ...) -> None: ...

class UpdateZoneResourcesReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ZoneConsoleRequest(_message.Message):
    __slots__ = ("zone_id", "data", "replay_history")
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    REPLAY_HISTORY_FIELD_NUMBER: _ClassVar[int]
    zone_id: str
    data: bytes
    replay_history: bool
    def __init__(self, zone_id: _Optional[str] = ..., data: _Optional[bytes] = ..., replay_history: _Optional[bool] = ...) -> None: ...

class ZoneConsoleReply(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ReadZoneMetricsRequest(_message.Message):
    __slots__ = ("zone_id",)
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    zone_id: str
    def __init__(self, zone_id: _Optional[str] = ...) -> None: ...

class ReadZoneMetricsReply(_message.Message):
    __slots__ = ("root",)
    ROOT_FIELD_NUMBER: _ClassVar[int]
    root: _common_pb2.MetricNode
    def __init__(self, root: _Optional[_Union[_common_pb2.MetricNode, _Mapping]] = ...) -> None: ...

class ExecuteZoneCommandRequest(_message.Message):
    __slots__ = ("start", "stdin", "terminal_resize")
    START_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    TERMINAL_RESIZE_FIELD_NUMBER: _ClassVar[int]
    start: ExecuteZoneCommandStart
    stdin: ExecuteZoneCommandStdin
    terminal_resize: ExecuteZoneCommandTerminalResize
    def __init__(self, start: _Optional[_Union[ExecuteZoneCommandStart, _Mapping]] = ..., stdin: _Optional[_Union[ExecuteZoneCommandStdin, _Mapping]] = ..., terminal_resize: _Optional[_Union[ExecuteZoneCommandTerminalResize, _Mapping]] = ...) -> None: ...

class ExecuteZoneCommandStart(_message.Message):
    __slots__ = ("zone_id", "workload_id", "process")
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    zone_id: str
    workload_id: str
    process: _common_pb2.ProcessSpec
    def __init__(self, zone_id: _Optional[str] = ..., workload_id: _Optional[str] = ..., process: _Optional[_Union[_common_pb2.ProcessSpec, _Mapping]] = ...) -> None: ...

class ExecuteZoneCommandStdin(_message.Message):
    __slots__ = ("stdin", "closed")
    STDIN_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    stdin: bytes
    closed: bool
    def __init__(self, stdin: _Optional[bytes] = ..., closed: _Optional[bool] = ...) -> None: ...

class ExecuteZoneCommandTerminalResize(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: _common_pb2.TerminalSize
    def __init__(self, size: _Optional[_Union[_common_pb2.TerminalSize, _Mapping]] = ...) -> None: ...

class ExecuteZoneCommandReply(_message.Message):
    __slots__ = ("output", "exited")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    EXITED_FIELD_NUMBER: _ClassVar[int]
    output: ExecuteZoneCommandOutput
    exited: ExecuteZoneCommandExited
    def __init__(self, output: _Optional[_Union[ExecuteZoneCommandOutput, _Mapping]] = ..., exited: _Optional[_Union[ExecuteZoneCommandExited, _Mapping]] = ...) -> None: ...

class ExecuteZoneCommandOutput(_message.Message):
    __slots__ = ("stdout", "stderr")
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    stdout: bytes
    stderr: bytes
    def __init__(self, stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ...) -> None: ...

class ExecuteZoneCommandExited(_message.Message):
    __slots__ = ("exit_code",)
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    exit_code: int
    def __init__(self, exit_code: _Optional[int] = ...) -> None: ...

class CreateWorkloadRequest(_message.Message):
    __slots__ = ("spec",)
    SPEC_FIELD_NUMBER: _ClassVar[int]
    spec: _common_pb2.WorkloadSpec
    def __init__(self, spec: _Optional[_Union[_common_pb2.WorkloadSpec, _Mapping]] = ...) -> None: ...

class CreateWorkloadReply(_message.Message):
    __slots__ = ("workload_id",)
    WORKLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    workload_id: str
    def __init__(self, workload_id: _Optional[str] = ...) -> None: ...

class StartWorkloadRequest(_message.Message):
    __slots__ = ("workload_id",)
    WORKLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    workload_id: str
    def __init__(self, workload_id: _Optional[str] = ...) -> None: ...

class StartWorkloadReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopWorkloadRequest(_message.Message):
    __slots__ = ("workload_id", "timeout")
    WORKLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    workload_id: str
    timeout: int
    def __init__(self, workload_id: _Optional[str] = ..., timeout: _Optional[int] = ...) -> None: ...

class StopWorkloadReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DestroyWorkloadRequest(_message.Message):
    __slots__ = ("workload_id",)
    WORKLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    workload_id: str
    def __init__(self, workload_id: _Optional[str] = ...) -> None: ...

class DestroyWorkloadReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResolveWorkloadIdRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ResolveWorkloadIdReply(_message.Message):
    __slots__ = ("workload_id",)
    WORKLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    workload_id: str
    def __init__(self, workload_id: _Optional[str] = ...) -> None: ...

class ResolveWorkloadIdsRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ResolveWorkloadIdsReply(_message.Message):
    __slots__ = ("workload_ids",)
    WORKLOAD_IDS_FIELD_NUMBER: _ClassVar[int]
    workload_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, workload_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetWorkloadRequest(_message.Message):
    __slots__ = ("workload_id",)
    WORKLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    workload_id: str
    def __init__(self, workload_id: _Optional[str] = ...) -> None: ...

class GetWorkloadReply(_message.Message):
    __slots__ = ("workload",)
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    workload: _common_pb2.Workload
    def __init__(self, workload: _Optional[_Union[_common_pb2.Workload, _Mapping]] = ...) -> None: ...

class ListWorkloadsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListWorkloadsReply(_message.Message):
    __slots__ = ("workloads",)
    WORKLOADS_FIELD_NUMBER: _ClassVar[int]
    workloads: _containers.RepeatedCompositeFieldContainer[_common_pb2.Workload]
    def __init__(self, workloads: _Optional[_Iterable[_Union[_common_pb2.Workload, _Mapping]]] = ...) -> None: ...

class WorkloadConsoleRequest(_message.Message):
    __slots__ = ("workload_id", "stdin", "stdin_closed", "terminal_resize")
    WORKLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    STDIN_CLOSED_FIELD_NUMBER: _ClassVar[int]
    TERMINAL_RESIZE_FIELD_NUMBER: _ClassVar[int]
    workload_id: str
    stdin: bytes
    stdin_closed: bool
    terminal_resize: _common_pb2.TerminalSize
    def __init__(self, workload_id: _Optional[str] = ..., stdin: _Optional[bytes] = ..., stdin_closed: _Optional[bool] = ..., terminal_resize: _Optional[_Union[_common_pb2.TerminalSize, _Mapping]] = ...) -> None: ...

class WorkloadConsoleReply(_message.Message):
    __slots__ = ("stdout", "stderr")
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    stdout: bytes
    stderr: bytes
    def __init__(self, stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ...) -> None: ...

class WatchEventsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchEventsReply(_message.Message):
    __slots__ = ("zone_changed", "workload_changed")
    ZONE_CHANGED_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_CHANGED_FIELD_NUMBER: _ClassVar[int]
    zone_changed: ZoneChangedEvent
    workload_changed: WorkloadChangedEvent
    def __init__(self, zone_changed: _Optional[_Union[ZoneChangedEvent, _Mapping]] = ..., workload_changed: _Optional[_Union[WorkloadChangedEvent, _Mapping]] = ...) -> None: ...

class ZoneChangedEvent(_message.Message):
    __slots__ = ("zone",)
    ZONE_FIELD_NUMBER: _ClassVar[int]
    zone: _common_pb2.Zone
    def __init__(self, zone: _Optional[_Union[_common_pb2.Zone, _Mapping]] = ...) -> None: ...

class WorkloadChangedEvent(_message.Message):
    __slots__ = ("workload",)
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    workload: _common_pb2.Workload
    def __init__(self, workload: _Optional[_Union[_common_pb2.Workload, _Mapping]] = ...) -> None: ...

class MonitorZoneKernelEventRequest(_message.Message):
    __slots__ = ("zone_id", "update", "stop")
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    zone_id: str
    update: ZoneKernelEventStreamUpdate
    stop: ZoneKernelEventStreamStop
    def __init__(self, zone_id: _Optional[str] = ..., update: _Optional[_Union[ZoneKernelEventStreamUpdate, _Mapping]] = ..., stop: _Optional[_Union[ZoneKernelEventStreamStop, _Mapping]] = ...) -> None: ...

class MonitorZoneKernelEventReply(_message.Message):
    __slots__ = ("syscall", "threadsnap")
    SYSCALL_FIELD_NUMBER: _ClassVar[int]
    THREADSNAP_FIELD_NUMBER: _ClassVar[int]
    syscall: ZoneKernelSyscallEvent
    threadsnap: ZoneKernelThreadSnapshotEvent
    def __init__(self, syscall: _Optional[_Union[ZoneKernelSyscallEvent, _Mapping]] = ..., threadsnap: _Optional[_Union[ZoneKernelThreadSnapshotEvent, _Mapping]] = ...) -> None: ...

class ZoneKernelEventStreamUpdate(_message.Message):
    __slots__ = ("enabled_syscalls",)
    ENABLED_SYSCALLS_FIELD_NUMBER: _ClassVar[int]
    enabled_syscalls: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, enabled_syscalls: _Optional[_Iterable[int]] = ...) -> None: ...

class ZoneKernelEventStreamStop(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ZoneKernelSyscallEvent(_message.Message):
    __slots__ = ("zone_id", "timestamp", "thread_id", "event_length", "event_name", "event_category", "event_flags", "event_type", "cpuid", "event_params")
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    EVENT_NAME_FIELD_NUMBER: _ClassVar[int]
    EVENT_CATEGORY_FIELD_NUMBER: _ClassVar[int]
    EVENT_FLAGS_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    CPUID_FIELD_NUMBER: _ClassVar[int]
    EVENT_PARAMS_FIELD_NUMBER: _ClassVar[int]
    zone_id: str
    timestamp: int
    thread_id: int
    event_length: int
    event_name: str
    event_category: str
    event_flags: int
    event_type: int
    cpuid: int
    event_params: _containers.RepeatedCompositeFieldContainer[ZoneKernelEventParam]
    def __init__(self, zone_id: _Optional[str] = ..., timestamp: _Optional[int] = ..., thread_id: _Optional[int] = ..., event_length: _Optional[int] = ..., event_name: _Optional[str] = ..., event_category: _Optional[str] = ..., event_flags: _Optional[int] = ..., event_type: _Optional[int] = ..., cpuid: _Optional[int] = ..., event_params: _Optional[_Iterable[_Union[ZoneKernelEventParam, _Mapping]]] = ...) -> None: ...

class ZoneKernelEventParam(_message.Message):
    __slots__ = ("name", "param_type", "param_data", "param_pretty", "param_type_pretty")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARAM_TYPE_FIELD_NUMBER: _ClassVar[int]
    PARAM_DATA_FIELD_NUMBER: _ClassVar[int]
    PARAM_PRETTY_FIELD_NUMBER: _ClassVar[int]
    PARAM_TYPE_PRETTY_FIELD_NUMBER: _ClassVar[int]
    name: str
    param_type: int
    param_data: bytes
    param_pretty: str
    param_type_pretty: str
    def __init__(self, name: _Optional[str] = ..., param_type: _Optional[int] = ..., param_data: _Optional[bytes] = ..., param_pretty: _Optional[str] = ..., param_type_pretty: _Optional[str] = ...) -> None: ...

class ZoneKernelThreadSnapshotEvent(_message.Message):
    __slots__ = ("zone_id", "thread_info", "zone_boot_epoch")
    class ThreadInfoEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: ZoneKernelThreadInfo
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[ZoneKernelThreadInfo, _Mapping]] = ...) -> None: ...
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_INFO_FIELD_NUMBER: _ClassVar[int]
    ZONE_BOOT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    zone_id: str
    thread_info: _containers.MessageMap[int, ZoneKernelThreadInfo]
    zone_boot_epoch: int
    def __init__(self, zone_id: _Optional[str] = ..., thread_info: _Optional[_Mapping[int, ZoneKernelThreadInfo]] = ..., zone_boot_epoch: _Optional[int] = ...) -> None: ...

class ZoneKernelThreadInfo(_message.Message):
    __slots__ = ("tid", "pid", "ptid", "sid", "vpgid", "pgid", "comm", "exe", "exepath", "exe_writable", "exe_upper_layer", "exe_lower_layer", "exe_from_memfd", "args", "env", "cwd", "fdlimit", "flags", "uid", "gid", "cap_permitted", "cap_effective", "cap_inheritable", "exe_ino", "exe_ino_ctime", "exe_ino_mtime", "exe_ino_ctime_duration_clone_ts", "exe_ino_ctime_duration_pidns_start", "vmsize_kb", "vmrss_kb", "vmswap_kb", "pfmajor", "pfminor", "vtid", "vpid", "pidns_init_start_ts", "cgroups", "root", "filtered_out", "fdlist", "clone_ts", "tty", "loginuid", "lastexec_ts", "reaper")
    class FdlistEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: ZoneKernelFdInfo
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[ZoneKernelFdInfo, _Mapping]] = ...) -> None: ...
    TID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    PTID_FIELD_NUMBER: _ClassVar[int]
    SID_FIELD_NUMBER: _ClassVar[int]
    VPGID_FIELD_NUMBER: _ClassVar[int]
    PGID_FIELD_NUMBER: _ClassVar[int]
    COMM_FIELD_NUMBER: _ClassVar[int]
    EXE_FIELD_NUMBER: _ClassVar[int]
    EXEPATH_FIELD_NUMBER: _ClassVar[int]
    EXE_WRITABLE_FIELD_NUMBER: _ClassVar[int]
    EXE_UPPER_LAYER_FIELD_NUMBER: _ClassVar[int]
    EXE_LOWER_LAYER_FIELD_NUMBER: _ClassVar[int]
    EXE_FROM_MEMFD_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CWD_FIELD_NUMBER: _ClassVar[int]
    FDLIMIT_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    CAP_PERMITTED_FIELD_NUMBER: _ClassVar[int]
    CAP_EFFECTIVE_FIELD_NUMBER: _ClassVar[int]
    CAP_INHERITABLE_FIELD_NUMBER: _ClassVar[int]
    EXE_INO_FIELD_NUMBER: _ClassVar[int]
    EXE_INO_CTIME_FIELD_NUMBER: _ClassVar[int]
    EXE_INO_MTIME_FIELD_NUMBER: _ClassVar[int]
    EXE_INO_CTIME_DURATION_CLONE_TS_FIELD_NUMBER: _ClassVar[int]
    EXE_INO_CTIME_DURATION_PIDNS_START_FIELD_NUMBER: _ClassVar[int]
    VMSIZE_KB_FIELD_NUMBER: _ClassVar[int]
    VMRSS_KB_FIELD_NUMBER: _ClassVar[int]
    VMSWAP_KB_FIELD_NUMBER: _ClassVar[int]
    PFMAJOR_FIELD_NUMBER: _ClassVar[int]
    PFMINOR_FIELD_NUMBER: _ClassVar[int]
    VTID_FIELD_NUMBER: _ClassVar[int]
    VPID_FIELD_NUMBER: _ClassVar[int]
    PIDNS_INIT_START_TS_FIELD_NUMBER: _ClassVar[int]
    CGROUPS_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    FILTERED_OUT_FIELD_NUMBER: _ClassVar[int]
    FDLIST_FIELD_NUMBER: _ClassVar[int]
    CLONE_TS_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    LOGINUID_FIELD_NUMBER: _ClassVar[int]
    LASTEXEC_TS_FIELD_NUMBER: _ClassVar[int]
    REAPER_FIELD_NUMBER: _ClassVar[int]
    tid: int
    pid: int
    ptid: int
    sid: int
    vpgid: int
    pgid: int
    comm: str
    exe: str
    exepath: str
    exe_writable: bool
    exe_upper_layer: bool
    exe_lower_layer: bool
    exe_from_memfd: bool
    args: str
    env: str
    cwd: str
    fdlimit: int
    flags: int
    uid: int
    gid: int
    cap_permitted: int
    cap_effective: int
    cap_inheritable: int
    exe_ino: int
    exe_ino_ctime: int
    exe_ino_mtime: int
    exe_ino_ctime_duration_clone_ts: int
    exe_ino_ctime_duration_pidns_start: int
    vmsize_kb: int
    vmrss_kb: int
    vmswap_kb: int
    pfmajor: int
    pfminor: int
    vtid: int
    vpid: int
    pidns_init_start_ts: int
    cgroups: str
    root: str
    filtered_out: bool
    fdlist: _containers.MessageMap[int, ZoneKernelFdInfo]
    clone_ts: int
    tty: int
    loginuid: int
    lastexec_ts: int
    reaper: bool
    def __init__(self, tid: _Optional[int] = ..., pid: _Optional[int] = ..., ptid: _Optional[int] = ..., sid: _Optional[int] = ..., vpgid: _Optional[int] = ..., pgid: _Optional[int] = ..., comm: _Optional[str] = ..., exe: _Optional[str] = ..., exepath: _Optional[str] = ..., exe_writable: _Optional[bool] = ..., exe_upper_layer: _Optional[bool] = ..., exe_lower_layer: _Optional[bool] = ..., exe_from_memfd: _Optional[bool] = ..., args: _Optional[str] = ..., env: _Optional[str] = ..., cwd: _Optional[str] = ..., fdlimit: _Optional[int] = ..., flags: _Optional[int] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., cap_permitted: _Optional[int] = ..., cap_effective: _Optional[int] = ..., cap_inheritable: _Optional[int] = ..., exe_ino: _Optional[int] = ..., exe_ino_ctime: _Optional[int] = ..., exe_ino_mtime: _Optional[int] = ..., exe_ino_ctime_duration_clone_ts: _Optional[int] = ..., exe_ino_ctime_duration_pidns_start: _Optional[int] = ..., vmsize_kb: _Optional[int] = ..., vmrss_kb: _Optional[int] = ..., vmswap_kb: _Optional[int] = ..., pfmajor: _Optional[int] = ..., pfminor: _Optional[int] = ..., vtid: _Optional[int] = ..., vpid: _Optional[int] = ..., pidns_init_start_ts: _Optional[int] = ..., cgroups: _Optional[str] = ..., root: _Optional[str] = ..., filtered_out: _Optional[bool] = ..., fdlist: _Optional[_Mapping[int, ZoneKernelFdInfo]] = ..., clone_ts: _Optional[int] = ..., tty: _Optional[int] = ..., loginuid: _Optional[int] = ..., lastexec_ts: _Optional[int] = ..., reaper: _Optional[bool] = ...) -> None: ...

class ZoneKernelFdInfo(_message.Message):
    __slots__ = ("fd", "inode", "fd_type", "info", "open_flags", "state_flags")
    FD_FIELD_NUMBER: _ClassVar[int]
    INODE_FIELD_NUMBER: _ClassVar[int]
    FD_TYPE_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    OPEN_FLAGS_FIELD_NUMBER: _ClassVar[int]
    STATE_FLAGS_FIELD_NUMBER: _ClassVar[int]
    fd: int
    inode: int
    fd_type: ZoneKernelFdType
    info: ZoneKernelFdInfoData
    open_flags: int
    state_flags: int
    def __init__(self, fd: _Optional[int] = ..., inode: _Optional[int] = ..., fd_type: _Optional[_Union[ZoneKernelFdType, str]] = ..., info: _Optional[_Union[ZoneKernelFdInfoData, _Mapping]] = ..., open_flags: _Optional[int] = ..., state_flags: _Optional[int] = ...) -> None: ...

class ZoneKernelFdInfoData(_message.Message):
    __slots__ = ("ipv4_socket", "ipv6_socket", "ipv4_server_socket", "ipv6_server_socket", "unix_socket", "regular_file", "file_name", "pidfd")
    IPV4_SOCKET_FIELD_NUMBER: _ClassVar[int]
    IPV6_SOCKET_FIELD_NUMBER: _ClassVar[int]
    IPV4_SERVER_SOCKET_FIELD_NUMBER: _ClassVar[int]
    IPV6_SERVER_SOCKET_FIELD_NUMBER: _ClassVar[int]
    UNIX_SOCKET_FIELD_NUMBER: _ClassVar[int]
    REGULAR_FILE_FIELD_NUMBER: _ClassVar[int]
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    PIDFD_FIELD_NUMBER: _ClassVar[int]
    ipv4_socket: ZoneKernelIpv4SocketInfo
    ipv6_socket: ZoneKernelIpv6SocketInfo
    ipv4_server_socket: ZoneKernelIpv4ServerSocketInfo
    ipv6_server_socket: ZoneKernelIpv6ServerSocketInfo
    unix_socket: ZoneKernelUnixSocketInfo
    regular_file: ZoneKernelRegularFileInfo
    file_name: str
    pidfd: ZoneKernelPidFd
    def __init__(self, ipv4_socket: _Optional[_Union[ZoneKernelIpv4SocketInfo, _Mapping]] = ..., ipv6_socket: _Optional[_Union[ZoneKernelIpv6SocketInfo, _Mapping]] = ..., ipv4_server_socket: _Optional[_Union[ZoneKernelIpv4ServerSocketInfo, _Mapping]] = ..., ipv6_server_socket: _Optional[_Union[ZoneKernelIpv6ServerSocketInfo, _Mapping]] = ..., unix_socket: _Optional[_Union[ZoneKernelUnixSocketInfo, _Mapping]] = ..., regular_file: _Optional[_Union[ZoneKernelRegularFileInfo, _Mapping]] = ..., file_name: _Optional[str] = ..., pidfd: _Optional[_Union[ZoneKernelPidFd, _Mapping]] = ...) -> None: ...

class ZoneKernelIpv4SocketInfo(_message.Message):
    __slots__ = ("source_ip", "dest_ip", "source_port", "dest_port", "protocol")
    SOURCE_IP_FIELD_NUMBER: _ClassVar[int]
    DEST_IP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PORT_FIELD_NUMBER: _ClassVar[int]
    DEST_PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    source_ip: str
    dest_ip: str
    source_port: int
    dest_port: int
    protocol: ZoneKernelIPProtocol
    def __init__(self, source_ip: _Optional[str] = ..., dest_ip: _Optional[str] = ..., source_port: _Optional[int] = ..., dest_port: _Optional[int] = ..., protocol: _Optional[_Union[ZoneKernelIPProtocol, str]] = ...) -> None: ...

class ZoneKernelIpv6SocketInfo(_message.Message):
    __slots__ = ("source_ip", "dest_ip", "source_port", "dest_port", "protocol")
    SOURCE_IP_FIELD_NUMBER: _ClassVar[int]
    DEST_IP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PORT_FIELD_NUMBER: _ClassVar[int]
    DEST_PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    source_ip: str
    dest_ip: str
    source_port: int
    dest_port: int
    protocol: ZoneKernelIPProtocol
    def __init__(self, source_ip: _Optional[str] = ..., dest_ip: _Optional[str] = ..., source_port: _Optional[int] = ..., dest_port: _Optional[int] = ..., protocol: _Optional[_Union[ZoneKernelIPProtocol, str]] = ...) -> None: ...

class ZoneKernelIpv4ServerSocketInfo(_message.Message):
    __slots__ = ("local_ip", "local_port", "protocol")
    LOCAL_IP_FIELD_NUMBER: _ClassVar[int]
    LOCAL_PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    local_ip: str
    local_port: int
    protocol: ZoneKernelIPProtocol
    def __init__(self, local_ip: _Optional[str] = ..., local_port: _Optional[int] = ..., protocol: _Optional[_Union[ZoneKernelIPProtocol, str]] = ...) -> None: ...

class ZoneKernelIpv6ServerSocketInfo(_message.Message):
    __slots__ = ("local_ip", "local_port", "protocol")
    LOCAL_IP_FIELD_NUMBER: _ClassVar[int]
    LOCAL_PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    local_ip: str
    local_port: int
    protocol: ZoneKernelIPProtocol
    def __init__(self, local_ip: _Optional[str] = ..., local_port: _Optional[int] = ..., protocol: _Optional[_Union[ZoneKernelIPProtocol, str]] = ...) -> None: ...

class ZoneKernelUnixSocketInfo(_message.Message):
    __slots__ = ("source", "destination", "name")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    source: int
    destination: int
    name: str
    def __init__(self, source: _Optional[int] = ..., destination: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class ZoneKernelRegularFileInfo(_message.Message):
    __slots__ = ("open_flags", "name", "mount_id", "device")
    OPEN_FLAGS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    open_flags: int
    name: str
    mount_id: int
    device: int
    def __init__(self, open_flags: _Optional[int] = ..., name: _Optional[str] = ..., mount_id: _Optional[int] = ..., device: _Optional[int] = ...) -> None: ...

class ZoneKernelPidFd(_message.Message):
    __slots__ = ("pid",)
    PID_FIELD_NUMBER: _ClassVar[int]
    pid: int
    def __init__(self, pid: _Optional[int] = ...) -> None: ...
