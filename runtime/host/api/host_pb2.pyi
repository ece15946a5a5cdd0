from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HostStatus(_message.Message):
    __slots__ = ("host_id", "version", "xen_version", "kernel", "python", "free_memory_kib", "total_memory_kib", "cpus", "zones_running", "zones_total", "missing", "started_unix_s", "zoned_rss_kib", "pid")
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    XEN_VERSION_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    PYTHON_FIELD_NUMBER: _ClassVar[int]
    FREE_MEMORY_KIB_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MEMORY_KIB_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    ZONES_RUNNING_FIELD_NUMBER: _ClassVar[int]
    ZONES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    ZONED_RSS_KIB_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    host_id: str
    version: str
    xen_version: str
    kernel: str
    python: str
    free_memory_kib: int
    total_memory_kib: int
    cpus: int
    zones_running: int
    zones_total: int
    missing: _containers.RepeatedScalarFieldContainer[str]
    started_unix_s: float
    zoned_rss_kib: int
    pid: int
    def __init__(self, host_id: _Optional[str] = ..., version: _Optional[str] = ..., xen_version: _Optional[str] = ..., kernel: _Optional[str] = ..., python: _Optional[str] = ..., free_memory_kib: _Optional[int] = ..., total_memory_kib: _Optional[int] = ..., cpus: _Optional[int] = ..., zones_running: _Optional[int] = ..., zones_total: _Optional[int] = ..., missing: _Optional[_Iterable[str]] = ..., started_unix_s: _Optional[float] = ..., zoned_rss_kib: _Optional[int] = ..., pid: _Optional[int] = ...) -> None: ...

class CheckRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckFinding(_message.Message):
    __slots__ = ("kind", "what", "problem", "remedy")
    KIND_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    kind: str
    what: str
    problem: str
    remedy: str
    def __init__(self, kind: _Optional[str] = ..., what: _Optional[str] = ..., problem: _Optional[str] = ..., remedy: _Optional[str] = ...) -> None: ...

class CheckReply(_message.Message):
    __slots__ = ("findings", "looked_at", "unseen")
    class LookedAtEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    LOOKED_AT_FIELD_NUMBER: _ClassVar[int]
    UNSEEN_FIELD_NUMBER: _ClassVar[int]
    findings: _containers.RepeatedCompositeFieldContainer[CheckFinding]
    looked_at: _containers.ScalarMap[str, int]
    unseen: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, findings: _Optional[_Iterable[_Union[CheckFinding, _Mapping]]] = ..., looked_at: _Optional[_Mapping[str, int]] = ..., unseen: _Optional[_Iterable[str]] = ...) -> None: ...

class DiskUsageRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DiskUsageRow(_message.Message):
    __slots__ = ("what", "count", "size_bytes", "reclaimable_bytes")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECLAIMABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    what: str
    count: int
    size_bytes: int
    reclaimable_bytes: int
    def __init__(self, what: _Optional[str] = ..., count: _Optional[int] = ..., size_bytes: _Optional[int] = ..., reclaimable_bytes: _Optional[int] = ...) -> None: ...

class DiskUsageReply(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[DiskUsageRow]
    def __init__(self, rows: _Optional[_Iterable[_Union[DiskUsageRow, _Mapping]]] = ...) -> None: ...

class PruneRequest(_message.Message):
    __slots__ = ("zones", "blobs", "dry_run")
    ZONES_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    zones: bool
    blobs: bool
    dry_run: bool
    def __init__(self, zones: _Optional[bool] = ..., blobs: _Optional[bool] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class PruneReply(_message.Message):
    __slots__ = ("removed", "freed_bytes")
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    removed: _containers.RepeatedScalarFieldContainer[str]
    freed_bytes: int
    def __init__(self, removed: _Optional[_Iterable[str]] = ..., freed_bytes: _Optional[int] = ...) -> None: ...

class WatchEventsRequest(_message.Message):
    __slots__ = ("since", "from_start", "follow", "zone")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    FROM_START_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    since: str
    from_start: bool
    follow: bool
    zone: str
    def __init__(self, since: _Optional[str] = ..., from_start: _Optional[bool] = ..., follow: _Optional[bool] = ..., zone: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("token", "unix_s", "kind", "zone_id", "zone", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    UNIX_S_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    token: str
    unix_s: float
    kind: str
    zone_id: str
    zone: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, token: _Optional[str] = ..., unix_s: _Optional[float] = ..., kind: _Optional[str] = ..., zone_id: _Optional[str] = ..., zone: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Blob(_message.Message):
    __slots__ = ("digest", "size_bytes")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    digest: str
    size_bytes: int
    def __init__(self, digest: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class FindBlobsRequest(_message.Message):
    __slots__ = ("blobs",)
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    blobs: _containers.RepeatedCompositeFieldContainer[Blob]
    def __init__(self, blobs: _Optional[_Iterable[_Union[Blob, _Mapping]]] = ...) -> None: ...

class FindBlobsReply(_message.Message):
    __slots__ = ("missing",)
    MISSING_FIELD_NUMBER: _ClassVar[int]
    missing: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, missing: _Optional[_Iterable[str]] = ...) -> None: ...

class PutBlobRequest(_message.Message):
    __slots__ = ("blob", "data")
    BLOB_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    blob: Blob
    data: bytes
    def __init__(self, blob: _Optional[_Union[Blob, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class PutBlobReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetPlatformRequest(_message.Message):
    __slots__ = ("platform",)
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    platform: bytes
    def __init__(self, platform: _Optional[bytes] = ...) -> None: ...

class SetPlatformReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PortRule(_message.Message):
    __slots__ = ("host_address", "host_port", "address", "port", "zone_port", "protocol")
    HOST_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HOST_PORT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    ZONE_PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    host_address: str
    host_port: int
    address: str
    port: int
    zone_port: int
    protocol: str
    def __init__(self, host_address: _Optional[str] = ..., host_port: _Optional[int] = ..., address: _Optional[str] = ..., port: _Optional[int] = ..., zone_port: _Optional[int] = ..., protocol: _Optional[str] = ...) -> None: ...

class RestartPolicy(_message.Message):
    __slots__ = ("name", "max_retries")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_RETRIES_FIELD_NUMBER: _ClassVar[int]
    name: str
    max_retries: int
    def __init__(self, name: _Optional[str] = ..., max_retries: _Optional[int] = ...) -> None: ...

class BootZoneRequest(_message.Message):
    __slots__ = ("bundle", "manifest", "ports", "restart", "remove", "stdin_open", "labels", "until_ready", "until_ports_answer", "attach", "network", "isolated", "fresh", "start_timeout_s")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    STDIN_OPEN_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_READY_FIELD_NUMBER: _ClassVar[int]
    UNTIL_PORTS_ANSWER_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    ISOLATED_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    START_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    bundle: bytes
    manifest: str
    ports: _containers.RepeatedCompositeFieldContainer[PortRule]
    restart: RestartPolicy
    remove: bool
    stdin_open: bool
    labels: _containers.ScalarMap[str, str]
    until_ready: bool
    until_ports_answer: bool
    attach: bool
    network: str
    isolated: bool
    fresh: bool
    start_timeout_s: float
    def __init__(self, bundle: _Optional[bytes] = ..., manifest: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[PortRule, _Mapping]]] = ..., restart: _Optional[_Union[RestartPolicy, _Mapping]] = ..., remove: _Optional[bool] = ..., stdin_open: _Optional[bool] = ..., labels: _Optional[_Mapping[str, str]] = ..., until_ready: _Optional[bool] = ..., until_ports_answer: _Optional[bool] = ..., attach: _Optional[bool] = ..., network: _Optional[str] = ..., isolated: _Optional[bool] = ..., fresh: _Optional[bool] = ..., start_timeout_s: _Optional[float] = ...) -> None: ...

class BootZoneReply(_message.Message):
    __slots__ = ("stage", "text", "zone")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    stage: str
    text: str
    zone: ZoneInfo
    def __init__(self, stage: _Optional[str] = ..., text: _Optional[str] = ..., zone: _Optional[_Union[ZoneInfo, _Mapping]] = ...) -> None: ...

class ExitStatus(_message.Message):
    __slots__ = ("code", "signal", "oom", "crashed", "reason", "text")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    OOM_FIELD_NUMBER: _ClassVar[int]
    CRASHED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: int
    signal: int
    oom: bool
    crashed: bool
    reason: str
    text: str
    def __init__(self, code: _Optional[int] = ..., signal: _Optional[int] = ..., oom: _Optional[bool] = ..., crashed: _Optional[bool] = ..., reason: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class ZoneInfo(_message.Message):
    __slots__ = ("id", "name", "state", "domain_uuid", "domid", "image", "kernel", "manifest", "memory_mib", "memory_max_mib", "memory_seen_mib", "vcpus", "vcpus_max", "vcpus_seen", "addresses", "ports", "exit", "restart", "restarts", "created_unix_s", "started_unix_s", "finished_unix_s", "remove", "labels", "timings", "zone_timings", "blobs", "console_tail", "command", "health", "tty", "network", "egress", "bandwidth_bit_s", "volumes", "devices", "paused", "limits", "refuse")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class TimingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class ZoneTimingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class LimitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_UUID_FIELD_NUMBER: _ClassVar[int]
    DOMID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MAX_MIB_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SEEN_MIB_FIELD_NUMBER: _ClassVar[int]
    VCPUS_FIELD_NUMBER: _ClassVar[int]
    VCPUS_MAX_FIELD_NUMBER: _ClassVar[int]
    VCPUS_SEEN_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    FINISHED_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    ZONE_TIMINGS_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    CONSOLE_TAIL_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    EGRESS_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_BIT_S_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    REFUSE_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    state: str
    domain_uuid: str
    domid: int
    image: str
    kernel: str
    manifest: str
    memory_mib: int
    memory_max_mib: int
    memory_seen_mib: int
    vcpus: int
    vcpus_max: int
    vcpus_seen: int
    addresses: _containers.RepeatedScalarFieldContainer[str]
    ports: _containers.RepeatedCompositeFieldContainer[PortRule]
    exit: ExitStatus
    restart: RestartPolicy
    restarts: int
    created_unix_s: float
    started_unix_s: float
    finished_unix_s: float
    remove: bool
    labels: _containers.ScalarMap[str, str]
    timings: _containers.ScalarMap[str, float]
    zone_timings: _containers.ScalarMap[str, float]
    blobs: _containers.RepeatedScalarFieldContainer[str]
    console_tail: _containers.RepeatedScalarFieldContainer[str]
    command: _containers.RepeatedScalarFieldContainer[str]
    health: str
    tty: bool
    network: str
    egress: _containers.RepeatedScalarFieldContainer[str]
    bandwidth_bit_s: int
    volumes: _containers.RepeatedCompositeFieldContainer[VolumeInfo]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceInfo]
    paused: bool
    limits: _containers.ScalarMap[str, str]
    refuse: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[str] = ..., domain_uuid: _Optional[str] = ..., domid: _Optional[int] = ..., image: _Optional[str] = ..., kernel: _Optional[str] = ..., manifest: _Optional[str] = ..., memory_mib: _Optional[int] = ..., memory_max_mib: _Optional[int] = ..., memory_seen_mib: _Optional[int] = ..., vcpus: _Optional[int] = ..., vcpus_max: _Optional[int] = ..., vcpus_seen: _Optional[int] = ..., addresses: _Optional[_Iterable[str]] = ..., ports: _Optional[_Iterable[_Union[PortRule, _Mapping]]] = ..., exit: _Optional[_Union[ExitStatus, _Mapping]] = ..., restart: _Optional[_Union[RestartPolicy, _Mapping]] = ..., restarts: _Optional[int] = ..., created_unix_s: _Optional[float] = ..., started_unix_s: _Optional[float] = ..., finished_unix_s: _Optional[float] = ..., remove: _Optional[bool] = ..., labels: _Optional[_Mapping[str, str]] = ..., timings: _Optional[_Mapping[str, float]] = ..., zone_timings: _Optional[_Mapping[str, float]] = ..., blobs: _Optional[_Iterable[str]] = ..., console_tail: _Optional[_Iterable[str]] = ..., command: _Optional[_Iterable[str]] = ..., health: _Optional[str] = ..., tty: _Optional[bool] = ..., network: _Optional[str] = ..., egress: _Optional[_Iterable[str]] = ..., bandwidth_bit_s: _Optional[int] = ..., volumes: _Optional[_Iterable[_Union[VolumeInfo, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[DeviceInfo, _Mapping]]] = ..., paused: _Optional[bool] = ..., limits: _Optional[_Mapping[str, str]] = ..., refuse: _Optional[_Iterable[str]] = ...) -> None: ...

class VolumeInfo(_message.Message):
    __slots__ = ("source", "target", "type", "readonly", "device", "size_mib")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    READONLY_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SIZE_MIB_FIELD_NUMBER: _ClassVar[int]
    source: str
    target: str
    type: str
    readonly: bool
    device: str
    size_mib: int
    def __init__(self, source: _Optional[str] = ..., target: _Optional[str] = ..., type: _Optional[str] = ..., readonly: _Optional[bool] = ..., device: _Optional[str] = ..., size_mib: _Optional[int] = ...) -> None: ...

class DeviceInfo(_message.Message):
    __slots__ = ("name", "kind", "source", "purpose", "readonly")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    READONLY_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    source: str
    purpose: str
    readonly: bool
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., source: _Optional[str] = ..., purpose: _Optional[str] = ..., readonly: _Optional[bool] = ...) -> None: ...

class ListZonesRequest(_message.Message):
    __slots__ = ("all",)
    ALL_FIELD_NUMBER: _ClassVar[int]
    all: bool
    def __init__(self, all: _Optional[bool] = ...) -> None: ...

class ListZonesReply(_message.Message):
    __slots__ = ("zones",)
    ZONES_FIELD_NUMBER: _ClassVar[int]
    zones: _containers.RepeatedCompositeFieldContainer[ZoneInfo]
    def __init__(self, zones: _Optional[_Iterable[_Union[ZoneInfo, _Mapping]]] = ...) -> None: ...

class GetZoneRequest(_message.Message):
    __slots__ = ("zone", "fresh")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    zone: str
    fresh: bool
    def __init__(self, zone: _Optional[str] = ..., fresh: _Optional[bool] = ...) -> None: ...

class StopZoneRequest(_message.Message):
    __slots__ = ("zone", "timeout_s")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    zone: str
    timeout_s: float
    def __init__(self, zone: _Optional[str] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class KillZoneRequest(_message.Message):
    __slots__ = ("zone", "signal")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    zone: str
    signal: int
    def __init__(self, zone: _Optional[str] = ..., signal: _Optional[int] = ...) -> None: ...

class RestartZoneRequest(_message.Message):
    __slots__ = ("zone", "timeout_s", "unless_live")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    UNLESS_LIVE_FIELD_NUMBER: _ClassVar[int]
    zone: str
    timeout_s: float
    unless_live: bool
    def __init__(self, zone: _Optional[str] = ..., timeout_s: _Optional[float] = ..., unless_live: _Optional[bool] = ...) -> None: ...

class RemoveZoneRequest(_message.Message):
    __slots__ = ("zone", "force")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    zone: str
    force: bool
    def __init__(self, zone: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class WaitZoneRequest(_message.Message):
    __slots__ = ("zone", "until", "timeout_s")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    zone: str
    until: str
    timeout_s: float
    def __init__(self, zone: _Optional[str] = ..., until: _Optional[str] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class UpdateZoneRequest(_message.Message):
    __slots__ = ("zone", "memory_mib", "vcpus", "restart", "add_ports", "remove_ports", "egress", "bandwidth_bit_s", "limits")
    class LimitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ZONE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    VCPUS_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    ADD_PORTS_FIELD_NUMBER: _ClassVar[int]
    REMOVE_PORTS_FIELD_NUMBER: _ClassVar[int]
    EGRESS_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_BIT_S_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    zone: str
    memory_mib: int
    vcpus: int
    restart: RestartPolicy
    add_ports: _containers.RepeatedCompositeFieldContainer[PortRule]
    remove_ports: _containers.RepeatedCompositeFieldContainer[PortRule]
    egress: EgressRules
    bandwidth_bit_s: int
    limits: _containers.ScalarMap[str, str]
    def __init__(self, zone: _Optional[str] = ..., memory_mib: _Optional[int] = ..., vcpus: _Optional[int] = ..., restart: _Optional[_Union[RestartPolicy, _Mapping]] = ..., add_ports: _Optional[_Iterable[_Union[PortRule, _Mapping]]] = ..., remove_ports: _Optional[_Iterable[_Union[PortRule, _Mapping]]] = ..., egress: _Optional[_Union[EgressRules, _Mapping]] = ..., bandwidth_bit_s: _Optional[int] = ..., limits: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PauseZoneRequest(_message.Message):
    __slots__ = ("zone",)
    ZONE_FIELD_NUMBER: _ClassVar[int]
    zone: str
    def __init__(self, zone: _Optional[str] = ...) -> None: ...

class UnpauseZoneRequest(_message.Message):
    __slots__ = ("zone",)
    ZONE_FIELD_NUMBER: _ClassVar[int]
    zone: str
    def __init__(self, zone: _Optional[str] = ...) -> None: ...

class EgressRules(_message.Message):
    __slots__ = ("rules",)
    RULES_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, rules: _Optional[_Iterable[str]] = ...) -> None: ...

class ReadLogsRequest(_message.Message):
    __slots__ = ("zone", "follow", "since_unix_s", "until_unix_s", "tail", "console")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    UNTIL_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    CONSOLE_FIELD_NUMBER: _ClassVar[int]
    zone: str
    follow: bool
    since_unix_s: float
    until_unix_s: float
    tail: int
    console: bool
    def __init__(self, zone: _Optional[str] = ..., follow: _Optional[bool] = ..., since_unix_s: _Optional[float] = ..., until_unix_s: _Optional[float] = ..., tail: _Optional[int] = ..., console: _Optional[bool] = ...) -> None: ...

class LogEntry(_message.Message):
    __slots__ = ("unix_s", "stream", "data")
    UNIX_S_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    unix_s: float
    stream: str
    data: bytes
    def __init__(self, unix_s: _Optional[float] = ..., stream: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class TerminalSize(_message.Message):
    __slots__ = ("rows", "columns")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...

class ProcessStart(_message.Message):
    __slots__ = ("zone", "workload", "argv", "env", "cwd", "user", "tty", "stdin", "size", "replay", "detach", "outside")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    ARGV_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CWD_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    DETACH_FIELD_NUMBER: _ClassVar[int]
    OUTSIDE_FIELD_NUMBER: _ClassVar[int]
    zone: str
    workload: str
    argv: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.RepeatedScalarFieldContainer[str]
    cwd: str
    user: str
    tty: bool
    stdin: bool
    size: TerminalSize
    replay: bool
    detach: bool
    outside: bool
    def __init__(self, zone: _Optional[str] = ..., workload: _Optional[str] = ..., argv: _Optional[_Iterable[str]] = ..., env: _Optional[_Iterable[str]] = ..., cwd: _Optional[str] = ..., user: _Optional[str] = ..., tty: _Optional[bool] = ..., stdin: _Optional[bool] = ..., size: _Optional[_Union[TerminalSize, _Mapping]] = ..., replay: _Optional[bool] = ..., detach: _Optional[bool] = ..., outside: _Optional[bool] = ...) -> None: ...

class ProcessInput(_message.Message):
    __slots__ = ("start", "stdin", "close_stdin", "resize", "signal")
    START_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_STDIN_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    start: ProcessStart
    stdin: bytes
    close_stdin: bool
    resize: TerminalSize
    signal: int
    def __init__(self, start: _Optional[_Union[ProcessStart, _Mapping]] = ..., stdin: _Optional[bytes] = ..., close_stdin: _Optional[bool] = ..., resize: _Optional[_Union[TerminalSize, _Mapping]] = ..., signal: _Optional[int] = ...) -> None: ...

class ProcessOutput(_message.Message):
    __slots__ = ("started", "stdout", "stderr", "exit")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    started: bool
    stdout: bytes
    stderr: bytes
    exit: ExitStatus
    def __init__(self, started: _Optional[bool] = ..., stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ..., exit: _Optional[_Union[ExitStatus, _Mapping]] = ...) -> None: ...

class CopyInRequest(_message.Message):
    __slots__ = ("zone", "workload", "path", "tar")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TAR_FIELD_NUMBER: _ClassVar[int]
    zone: str
    workload: str
    path: str
    tar: bytes
    def __init__(self, zone: _Optional[str] = ..., workload: _Optional[str] = ..., path: _Optional[str] = ..., tar: _Optional[bytes] = ...) -> None: ...

class CopyInReply(_message.Message):
    __slots__ = ("xattrs_left_out",)
    XATTRS_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    xattrs_left_out: int
    def __init__(self, xattrs_left_out: _Optional[int] = ...) -> None: ...

class CopyOutRequest(_message.Message):
    __slots__ = ("zone", "workload", "path")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    zone: str
    workload: str
    path: str
    def __init__(self, zone: _Optional[str] = ..., workload: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class CopyOutReply(_message.Message):
    __slots__ = ("tar",)
    TAR_FIELD_NUMBER: _ClassVar[int]
    tar: bytes
    def __init__(self, tar: _Optional[bytes] = ...) -> None: ...

class ReadMetricsRequest(_message.Message):
    __slots__ = ("zone",)
    ZONE_FIELD_NUMBER: _ClassVar[int]
    zone: str
    def __init__(self, zone: _Optional[str] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "value", "unit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    unit: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ...) -> None: ...

class ReadMetricsReply(_message.Message):
    __slots__ = ("metrics", "unix_s")
    METRICS_FIELD_NUMBER: _ClassVar[int]
    UNIX_S_FIELD_NUMBER: _ClassVar[int]
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    unix_s: float
    def __init__(self, metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., unix_s: _Optional[float] = ...) -> None: ...

class WatchMetricsRequest(_message.Message):
    __slots__ = ("zone", "interval_s")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    zone: str
    interval_s: float
    def __init__(self, zone: _Optional[str] = ..., interval_s: _Optional[float] = ...) -> None: ...

class PingZoneRequest(_message.Message):
    __slots__ = ("zone", "count")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    zone: str
    count: int
    def __init__(self, zone: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class PingZoneReply(_message.Message):
    __slots__ = ("round_trips_s",)
    ROUND_TRIPS_S_FIELD_NUMBER: _ClassVar[int]
    round_trips_s: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, round_trips_s: _Optional[_Iterable[float]] = ...) -> None: ...

class ListProcessesRequest(_message.Message):
    __slots__ = ("zone",)
    ZONE_FIELD_NUMBER: _ClassVar[int]
    zone: str
    def __init__(self, zone: _Optional[str] = ...) -> None: ...

class ZoneProcess(_message.Message):
    __slots__ = ("pid", "parent", "uid", "state", "resident_kib", "cpu_s", "command")
    PID_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_KIB_FIELD_NUMBER: _ClassVar[int]
    CPU_S_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    pid: int
    parent: int
    uid: int
    state: str
    resident_kib: int
    cpu_s: float
    command: str
    def __init__(self, pid: _Optional[int] = ..., parent: _Optional[int] = ..., uid: _Optional[int] = ..., state: _Optional[str] = ..., resident_kib: _Optional[int] = ..., cpu_s: _Optional[float] = ..., command: _Optional[str] = ...) -> None: ...

class ListProcessesReply(_message.Message):
    __slots__ = ("processes",)
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    processes: _containers.RepeatedCompositeFieldContainer[ZoneProcess]
    def __init__(self, processes: _Optional[_Iterable[_Union[ZoneProcess, _Mapping]]] = ...) -> None: ...

class SysctlRequest(_message.Message):
    __slots__ = ("zone", "key", "value")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    zone: str
    key: str
    value: str
    def __init__(self, zone: _Optional[str] = ..., key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class SysctlReply(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: str
    def __init__(self, value: _Optional[str] = ...) -> None: ...

class ListNetworksRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NetworkInfo(_message.Message):
    __slots__ = ("name", "ipv4", "ipv6", "gateway4", "gateway6", "engine", "zones", "counters", "shared")
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    IPV4_FIELD_NUMBER: _ClassVar[int]
    IPV6_FIELD_NUMBER: _ClassVar[int]
    GATEWAY4_FIELD_NUMBER: _ClassVar[int]
    GATEWAY6_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ZONES_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    name: str
    ipv4: str
    ipv6: str
    gateway4: str
    gateway6: str
    engine: str
    zones: _containers.RepeatedScalarFieldContainer[str]
    counters: _containers.ScalarMap[str, int]
    shared: bool
    def __init__(self, name: _Optional[str] = ..., ipv4: _Optional[str] = ..., ipv6: _Optional[str] = ..., gateway4: _Optional[str] = ..., gateway6: _Optional[str] = ..., engine: _Optional[str] = ..., zones: _Optional[_Iterable[str]] = ..., counters: _Optional[_Mapping[str, int]] = ..., shared: _Optional[bool] = ...) -> None: ...

class CreateNetworkRequest(_message.Message):
    __slots__ = ("name", "mtu")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    name: str
    mtu: int
    def __init__(self, name: _Optional[str] = ..., mtu: _Optional[int] = ...) -> None: ...

class RemoveNetworkRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RemoveNetworkReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListNetworksReply(_message.Message):
    __slots__ = ("networks",)
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    networks: _containers.RepeatedCompositeFieldContainer[NetworkInfo]
    def __init__(self, networks: _Optional[_Iterable[_Union[NetworkInfo, _Mapping]]] = ...) -> None: ...

class ListFlowsRequest(_message.Message):
    __slots__ = ("zone",)
    ZONE_FIELD_NUMBER: _ClassVar[int]
    zone: str
    def __init__(self, zone: _Optional[str] = ...) -> None: ...

class Flow(_message.Message):
    __slots__ = ("protocol", "zone_side", "outside", "state", "bytes_up", "bytes_down", "age_s")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ZONE_SIDE_FIELD_NUMBER: _ClassVar[int]
    OUTSIDE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    protocol: str
    zone_side: str
    outside: str
    state: str
    bytes_up: int
    bytes_down: int
    age_s: float
    def __init__(self, protocol: _Optional[str] = ..., zone_side: _Optional[str] = ..., outside: _Optional[str] = ..., state: _Optional[str] = ..., bytes_up: _Optional[int] = ..., bytes_down: _Optional[int] = ..., age_s: _Optional[float] = ...) -> None: ...

class ZoneFlows(_message.Message):
    __slots__ = ("zone", "flows", "counters", "problem")
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ZONE_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    zone: str
    flows: _containers.RepeatedCompositeFieldContainer[Flow]
    counters: _containers.ScalarMap[str, int]
    problem: str
    def __init__(self, zone: _Optional[str] = ..., flows: _Optional[_Iterable[_Union[Flow, _Mapping]]] = ..., counters: _Optional[_Mapping[str, int]] = ..., problem: _Optional[str] = ...) -> None: ...

class ListFlowsReply(_message.Message):
    __slots__ = ("zones",)
    ZONES_FIELD_NUMBER: _ClassVar[int]
    zones: _containers.RepeatedCompositeFieldContainer[ZoneFlows]
    def __init__(self, zones: _Optional[_Iterable[_Union[ZoneFlows, _Mapping]]] = ...) -> None: ...

class CaptureNetworkRequest(_message.Message):
    __slots__ = ("zone", "count", "seconds", "snap_bytes", "host", "port")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    SNAP_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    zone: str
    count: int
    seconds: float
    snap_bytes: int
    host: str
    port: int
    def __init__(self, zone: _Optional[str] = ..., count: _Optional[int] = ..., seconds: _Optional[float] = ..., snap_bytes: _Optional[int] = ..., host: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class CaptureNetworkReply(_message.Message):
    __slots__ = ("pcap", "frames", "lost")
    PCAP_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    pcap: bytes
    frames: int
    lost: int
    def __init__(self, pcap: _Optional[bytes] = ..., frames: _Optional[int] = ..., lost: _Optional[int] = ...) -> None: ...
