import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ZoneResourceAdjustmentPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ZONE_RESOURCE_ADJUSTMENT_POLICY_UNKNOWN: _ClassVar[ZoneResourceAdjustmentPolicy]
    ZONE_RESOURCE_ADJUSTMENT_POLICY_STATIC: _ClassVar[ZoneResourceAdjustmentPolicy]
    ZONE_RESOURCE_ADJUSTMENT_POLICY_DYNAMIC: _ClassVar[ZoneResourceAdjustmentPolicy]

class ZoneVirtualizationBackend(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ZONE_VIRTUALIZATION_BACKEND_UNKNOWN: _ClassVar[ZoneVirtualizationBackend]
    ZONE_VIRTUALIZATION_BACKEND_PV: _ClassVar[ZoneVirtualizationBackend]
    ZONE_VIRTUALIZATION_BACKEND_PVH: _ClassVar[ZoneVirtualizationBackend]
    ZONE_VIRTUALIZATION_BACKEND_AUTOMATIC: _ClassVar[ZoneVirtualizationBackend]

class ZoneState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ZONE_STATE_UNKNOWN: _ClassVar[ZoneState]
    ZONE_STATE_CREATING: _ClassVar[ZoneState]
    ZONE_STATE_CREATED: _ClassVar[ZoneState]
    ZONE_STATE_READY: _ClassVar[ZoneState]
    ZONE_STATE_EXITED: _ClassVar[ZoneState]
    ZONE_STATE_DESTROYING: _ClassVar[ZoneState]
    ZONE_STATE_DESTROYED: _ClassVar[ZoneState]
    ZONE_STATE_FAILED: _ClassVar[ZoneState]

class ZoneDiskStatusDiskPurpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ZONE_DISK_STATUS_DISK_PURPOSE_UNKNOWN: _ClassVar[ZoneDiskStatusDiskPurpose]
    ZONE_DISK_STATUS_DISK_PURPOSE_ADDONS: _ClassVar[ZoneDiskStatusDiskPurpose]
    ZONE_DISK_STATUS_DISK_PURPOSE_SCRATCH: _ClassVar[ZoneDiskStatusDiskPurpose]

class MetricFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_FORMAT_UNKNOWN: _ClassVar[MetricFormat]
    METRIC_FORMAT_BYTES: _ClassVar[MetricFormat]
    METRIC_FORMAT_INTEGER: _ClassVar[MetricFormat]
    METRIC_FORMAT_DURATION_SECONDS: _ClassVar[MetricFormat]
    METRIC_FORMAT_PERCENT: _ClassVar[MetricFormat]

class ZoneNetworkBackend(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ZONE_NETWORK_BACKEND_DEFAULT: _ClassVar[ZoneNetworkBackend]
    ZONE_NETWORK_BACKEND_NONE: _ClassVar[ZoneNetworkBackend]
    ZONE_NETWORK_BACKEND_EXTERNAL: _ClassVar[ZoneNetworkBackend]
    ZONE_NETWORK_BACKEND_PASSTHROUGH: _ClassVar[ZoneNetworkBackend]

class ZoneNetworkIpVersion(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ZONE_NETWORK_IP_VERSION_UNKNOWN: _ClassVar[ZoneNetworkIpVersion]
    ZONE_NETWORK_IP_VERSION_V4: _ClassVar[ZoneNetworkIpVersion]
    ZONE_NETWORK_IP_VERSION_V6: _ClassVar[ZoneNetworkIpVersion]

class ZoneNetworkNUDMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ZONE_NETWORK_NUD_MODE_PERMANENT: _ClassVar[ZoneNetworkNUDMode]
    ZONE_NETWORK_NUD_MODE_NOARP: _ClassVar[ZoneNetworkNUDMode]
    ZONE_NETWORK_NUD_MODE_REACHABLE: _ClassVar[ZoneNetworkNUDMode]

class ProcessNamespace(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROCESS_NAMESPACE_MOUNT: _ClassVar[ProcessNamespace]
    PROCESS_NAMESPACE_UTS: _ClassVar[ProcessNamespace]
    PROCESS_NAMESPACE_IPC: _ClassVar[ProcessNamespace]
    PROCESS_NAMESPACE_USER: _ClassVar[ProcessNamespace]
    PROCESS_NAMESPACE_PID: _ClassVar[ProcessNamespace]
    PROCESS_NAMESPACE_NET: _ClassVar[ProcessNamespace]
    PROCESS_NAMESPACE_CGROUP: _ClassVar[ProcessNamespace]
    PROCESS_NAMESPACE_TIME: _ClassVar[ProcessNamespace]

class WorkloadState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKLOAD_STATE_UNKNOWN: _ClassVar[WorkloadState]
    WORKLOAD_STATE_CREATING: _ClassVar[WorkloadState]
    WORKLOAD_STATE_CREATED: _ClassVar[WorkloadState]
    WORKLOAD_STATE_RUNNING: _ClassVar[WorkloadState]
    WORKLOAD_STATE_COMPLETED: _ClassVar[WorkloadState]
    WORKLOAD_STATE_DESTROYING: _ClassVar[WorkloadState]
    WORKLOAD_STATE_DESTROYED: _ClassVar[WorkloadState]
    WORKLOAD_STATE_FAILED: _ClassVar[WorkloadState]

class OciImageFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OCI_IMAGE_FORMAT_UNKNOWN: _ClassVar[OciImageFormat]
    OCI_IMAGE_FORMAT_SQUASHFS: _ClassVar[OciImageFormat]
    OCI_IMAGE_FORMAT_EROFS: _ClassVar[OciImageFormat]
    OCI_IMAGE_FORMAT_TAR: _ClassVar[OciImageFormat]
    OCI_IMAGE_FORMAT_DIRECTORY: _ClassVar[OciImageFormat]

class OciImageProgressPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OCI_IMAGE_PROGRESS_PHASE_UNKNOWN: _ClassVar[OciImageProgressPhase]
    OCI_IMAGE_PROGRESS_PHASE_STARTED: _ClassVar[OciImageProgressPhase]
    OCI_IMAGE_PROGRESS_PHASE_RESOLVING: _ClassVar[OciImageProgressPhase]
    OCI_IMAGE_PROGRESS_PHASE_RESOLVED: _ClassVar[OciImageProgressPhase]
    OCI_IMAGE_PROGRESS_PHASE_CONFIG_DOWNLOAD: _ClassVar[OciImageProgressPhase]
    OCI_IMAGE_PROGRESS_PHASE_LAYER_DOWNLOAD: _ClassVar[OciImageProgressPhase]
    OCI_IMAGE_PROGRESS_PHASE_ASSEMBLE: _ClassVar[OciImageProgressPhase]
    OCI_IMAGE_PROGRESS_PHASE_PACK: _ClassVar[OciImageProgressPhase]
    OCI_IMAGE_PROGRESS_PHASE_COMPLETE: _ClassVar[OciImageProgressPhase]

class OciImageProgressLayerPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OCI_IMAGE_PROGRESS_LAYER_PHASE_UNKNOWN: _ClassVar[OciImageProgressLayerPhase]
    OCI_IMAGE_PROGRESS_LAYER_PHASE_WAITING: _ClassVar[OciImageProgressLayerPhase]
    OCI_IMAGE_PROGRESS_LAYER_PHASE_DOWNLOADING: _ClassVar[OciImageProgressLayerPhase]
    OCI_IMAGE_PROGRESS_LAYER_PHASE_DOWNLOADED: _ClassVar[OciImageProgressLayerPhase]
    OCI_IMAGE_PROGRESS_LAYER_PHASE_EXTRACTING: _ClassVar[OciImageProgressLayerPhase]
    OCI_IMAGE_PROGRESS_LAYER_PHASE_EXTRACTED: _ClassVar[OciImageProgressLayerPhase]

class HostCpuTopologyClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HOST_CPU_TOPOLOGY_CLASS_STANDARD: _ClassVar[HostCpuTopologyClass]
    HOST_CPU_TOPOLOGY_CLASS_PERFORMANCE: _ClassVar[HostCpuTopologyClass]
    HOST_CPU_TOPOLOGY_CLASS_EFFICIENCY: _ClassVar[HostCpuTopologyClass]
ZONE_RESOURCE_ADJUSTMENT_POLICY_UNKNOWN: ZoneResourceAdjustmentPolicy
ZONE_RESOURCE_ADJUSTMENT_POLICY_STATIC: ZoneResourceAdjustmentPolicy
ZONE_RESOURCE_ADJUSTMENT_POLICY_DYNAMIC: ZoneResourceAdjustmentPolicy
ZONE_VIRTUALIZATION_BACKEND_UNKNOWN: ZoneVirtualizationBackend
ZONE_VIRTUALIZATION_BACKEND_PV: ZoneVirtualizationBackend
ZONE_VIRTUALIZATION_BACKEND_PVH: ZoneVirtualizationBackend
ZONE_VIRTUALIZATION_BACKEND_AUTOMATIC: ZoneVirtualizationBackend
ZONE_STATE_UNKNOWN: ZoneState
ZONE_STATE_CREATING: ZoneState
ZONE_STATE_CREATED: ZoneState
ZONE_STATE_READY: ZoneState
ZONE_STATE_EXITED: ZoneState
ZONE_STATE_DESTROYING: ZoneState
ZONE_STATE_DESTROYED: ZoneState
ZONE_STATE_FAILED: ZoneState
ZONE_DISK_STATUS_DISK_PURPOSE_UNKNOWN: ZoneDiskStatusDiskPurpose
ZONE_DISK_STATUS_DISK_PURPOSE_ADDONS: ZoneDiskStatusDiskPurpose
ZONE_DISK_STATUS_DISK_PURPOSE_SCRATCH: ZoneDiskStatusDiskPurpose
METRIC_FORMAT_UNKNOWN: MetricFormat
METRIC_FORMAT_BYTES: MetricFormat
METRIC_FORMAT_INTEGER: MetricFormat
METRIC_FORMAT_DURATION_SECONDS: MetricFormat
METRIC_FORMAT_PERCENT: MetricFormat
ZONE_NETWORK_BACKEND_DEFAULT: ZoneNetworkBackend
ZONE_NETWORK_BACKEND_NONE: ZoneNetworkBackend
ZONE_NETWORK_BACKEND_EXTERNAL: ZoneNetworkBackend
ZONE_NETWORK_BACKEND_PASSTHROUGH: ZoneNetworkBackend
ZONE_NETWORK_IP_VERSION_UNKNOWN: ZoneNetworkIpVersion
ZONE_NETWORK_IP_VERSION_V4: ZoneNetworkIpVersion
ZONE_NETWORK_IP_VERSION_V6: ZoneNetworkIpVersion
ZONE_NETWORK_NUD_MODE_PERMANENT: ZoneNetworkNUDMode
ZONE_NETWORK_NUD_MODE_NOARP: ZoneNetworkNUDMode
ZONE_NETWORK_NUD_MODE_REACHABLE: ZoneNetworkNUDMode
PROCESS_NAMESPACE_MOUNT: ProcessNamespace
PROCESS_NAMESPACE_UTS: ProcessNamespace
PROCESS_NAMESPACE_IPC: ProcessNamespace
PROCESS_NAMESPACE_USER: ProcessNamespace
PROCESS_NAMESPACE_PID: ProcessNamespace
PROCESS_NAMESPACE_NET: ProcessNamespace
PROCESS_NAMESPACE_CGROUP: ProcessNamespace
PROCESS_NAMESPACE_TIME: ProcessNamespace
WORKLOAD_STATE_UNKNOWN: WorkloadState
WORKLOAD_STATE_CREATING: WorkloadState
WORKLOAD_STATE_CREATED: WorkloadState
WORKLOAD_STATE_RUNNING: WorkloadState
WORKLOAD_STATE_COMPLETED: WorkloadState
WORKLOAD_STATE_DESTROYING: WorkloadState
WORKLOAD_STATE_DESTROYED: WorkloadState
WORKLOAD_STATE_FAILED: WorkloadState
OCI_IMAGE_FORMAT_UNKNOWN: OciImageFormat
OCI_IMAGE_FORMAT_SQUASHFS: OciImageFormat
OCI_IMAGE_FORMAT_EROFS: OciImageFormat
OCI_IMAGE_FORMAT_TAR: OciImageFormat
OCI_IMAGE_FORMAT_DIRECTORY: OciImageFormat
OCI_IMAGE_PROGRESS_PHASE_UNKNOWN: OciImageProgressPhase
OCI_IMAGE_PROGRESS_PHASE_STARTED: OciImageProgressPhase
OCI_IMAGE_PROGRESS_PHASE_RESOLVING: OciImageProgressPhase
OCI_IMAGE_PROGRESS_PHASE_RESOLVED: OciImageProgressPhase
OCI_IMAGE_PROGRESS_PHASE_CONFIG_DOWNLOAD: OciImageProgressPhase
OCI_IMAGE_PROGRESS_PHASE_LAYER_DOWNLOAD: OciImageProgressPhase
OCI_IMAGE_PROGRESS_PHASE_ASSEMBLE: OciImageProgressPhase
OCI_IMAGE_PROGRESS_PHASE_PACK: OciImageProgressPhase
OCI_IMAGE_PROGRESS_PHASE_COMPLETE: OciImageProgressPhase
OCI_IMAGE_PROGRESS_LAYER_PHASE_UNKNOWN: OciImageProgressLayerPhase
OCI_IMAGE_PROGRESS_LAYER_PHASE_WAITING: OciImageProgressLayerPhase
OCI_IMAGE_PROGRESS_LAYER_PHASE_DOWNLOADING: OciImageProgressLayerPhase
OCI_IMAGE_PROGRESS_LAYER_PHASE_DOWNLOADED: OciImageProgressLayerPhase
OCI_IMAGE_PROGRESS_LAYER_PHASE_EXTRACTING: OciImageProgressLayerPhase
OCI_IMAGE_PROGRESS_LAYER_PHASE_EXTRACTED: OciImageProgressLayerPhase
HOST_CPU_TOPOLOGY_CLASS_STANDARD: HostCpuTopologyClass
HOST_CPU_TOPOLOGY_CLASS_PERFORMANCE: HostCpuTopologyClass
HOST_CPU_TOPOLOGY_CLASS_EFFICIENCY: HostCpuTopologyClass

class Zone(_message.Message):
    __slots__ = ("id", "spec", "status")
    ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    id: str
    spec: ZoneSpec
    status: ZoneStatus
    def __init__(self, id: _Optional[str] = ..., spec: _Optional[_Union[ZoneSpec, _Mapping]] = ..., status: _Optional[_Union[ZoneStatus, _Mapping]] = ...) -> None: ...

class ZoneSpec(_message.Message):
    __slots__ = ("name", "kernel", "initrd", "kernel_options", "initial_resources", "annotations", "devices", "network_options", "virtualization_options", "scratch_disk", "addons")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    INITRD_FIELD_NUMBER: _ClassVar[int]
    KERNEL_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_RESOURCES_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    NETWORK_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    VIRTUALIZATION_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    SCRATCH_DISK_FIELD_NUMBER: _ClassVar[int]
    ADDONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kernel: OciImageSpec
    initrd: OciImageSpec
    kernel_options: KernelOptionsSpec
    initial_resources: ZoneResourcesSpec
    annotations: _containers.RepeatedCompositeFieldContainer[AnnotationSpec]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceReferenceSpec]
    network_options: ZoneNetworkOptionsSpec
    virtualization_options: ZoneVirtualizationOptionsSpec
    scratch_disk: ZoneScratchDiskSpec
    addons: _containers.RepeatedCompositeFieldContainer[OciImageSpec]
    def __init__(self, name: _Optional[str] = ..., kernel: _Optional[_Union[OciImageSpec, _Mapping]] = ..., initrd: _Optional[_Union[OciImageSpec, _Mapping]] = ..., kernel_options: _Optional[_Union[KernelOptionsSpec, _Mapping]] = ..., initial_resources: _Optional[_Union[ZoneResourcesSpec, _Mapping]] = ..., annotations: _Optional[_Iterable[_Union[AnnotationSpec, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[DeviceReferenceSpec, _Mapping]]] = ..., network_options: _Optional[_Union[ZoneNetworkOptionsSpec, _Mapping]] = ..., virtualization_options: _Optional[_Union[ZoneVirtualizationOptionsSpec, _Mapping]] = ..., scratch_disk: _Optional[_Union[ZoneScratchDiskSpec, _Mapping]] = ..., addons: _Optional[_Iterable[_Union[OciImageSpec, _Mapping]]] = ...) -> None: ...

class ZoneResourcesSpec(_message.Message):
    __slots__ = ("max_memory", "min_memory", "target_memory", "max_cpus", "min_cpus", "target_cpus", "adjustment_policy")
    MAX_MEMORY_FIELD_NUMBER: _ClassVar[int]
    MIN_MEMORY_FIELD_NUMBER: _ClassVar[int]
    TARGET_MEMORY_FIELD_NUMBER: _ClassVar[int]
    MAX_CPUS_FIELD_NUMBER: _ClassVar[int]
    MIN_CPUS_FIELD_NUMBER: _ClassVar[int]
    TARGET_CPUS_FIELD_NUMBER: _ClassVar[int]
    ADJUSTMENT_POLICY_FIELD_NUMBER: _ClassVar[int]
    max_memory: int
    min_memory: int
    target_memory: int
    max_cpus: int
    min_cpus: int
    target_cpus: int
    adjustment_policy: ZoneResourceAdjustmentPolicy
    def __init__(self, max_memory: _Optional[int] = ..., min_memory: _Optional[int] = ..., target_memory: _Optional[int] = ..., max_cpus: _Optional[int] = ..., min_cpus: _Optional[int] = ..., target_cpus: _Optional[int] = ..., adjustment_policy: _Optional[_Union[ZoneResourceAdjustmentPolicy, str]] = ...) -> None: ...

class KernelModuleParameter(_message.Message):
    __slots__ = ("module", "parameter")
    MODULE_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_FIELD_NUMBER: _ClassVar[int]
    module: str
    parameter: str
    def __init__(self, module: _Optional[str] = ..., parameter: _Optional[str] = ...) -> None: ...

class KernelSysctlParameter(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class KernelOptionsSpec(_message.Message):
    __slots__ = ("verbose", "cmdline_append", "cmdline", "modules", "module_parameters", "sysctl_parameters")
    VERBOSE_FIELD_NUMBER: _ClassVar[int]
    CMDLINE_APPEND_FIELD_NUMBER: _ClassVar[int]
    CMDLINE_FIELD_NUMBER: _ClassVar[int]
    MODULES_FIELD_NUMBER: _ClassVar[int]
    MODULE_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    SYSCTL_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    verbose: bool
    cmdline_append: str
    cmdline: _containers.RepeatedScalarFieldContainer[str]
    modules: _containers.RepeatedScalarFieldContainer[str]
    module_parameters: _containers.RepeatedCompositeFieldContainer[KernelModuleParameter]
    sysctl_parameters: _containers.RepeatedCompositeFieldContainer[KernelSysctlParameter]
    def __init__(self, verbose: _Optional[bool] = ..., cmdline_append: _Optional[str] = ..., cmdline: _Optional[_Iterable[str]] = ..., modules: _Optional[_Iterable[str]] = ..., module_parameters: _Optional[_Iterable[_Union[KernelModuleParameter, _Mapping]]] = ..., sysctl_parameters: _Optional[_Iterable[_Union[KernelSysctlParameter, _Mapping]]] = ...) -> None: ...

class ZoneVirtualizationOptionsSpec(_message.Message):
    __slots__ = ("backend",)
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    backend: ZoneVirtualizationBackend
    def __init__(self, backend: _Optional[_Union[ZoneVirtualizationBackend, str]] = ...) -> None: ...

class ZoneScratchDiskSpec(_message.Message):
    __slots__ = ("image", "block")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    image: ZoneScratchDiskSpecImage
    block: ZoneScratchDiskSpecStaticBlock
    def __init__(self, image: _Optional[_Union[ZoneScratchDiskSpecImage, _Mapping]] = ..., block: _Optional[_Union[ZoneScratchDiskSpecStaticBlock, _Mapping]] = ...) -> None: ...

class ZoneScratchDiskSpecImage(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class ZoneScratchDiskSpecStaticBlock(_message.Message):
    __slots__ = ("path", "device")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    path: str
    device: str
    def __init__(self, path: _Optional[str] = ..., device: _Optional[str] = ...) -> None: ...

class AnnotationSpec(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class DeviceReferenceSpec(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ZoneStatus(_message.Message):
    __slots__ = ("state", "network_status", "exit_status", "error_status", "host", "domid", "resource_status", "created_at", "device_status", "ready_at")
    STATE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_STATUS_FIELD_NUMBER: _ClassVar[int]
    EXIT_STATUS_FIELD_NUMBER: _ClassVar[int]
    ERROR_STATUS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    DOMID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_STATUS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_STATUS_FIELD_NUMBER: _ClassVar[int]
    READY_AT_FIELD_NUMBER: _ClassVar[int]
    state: ZoneState
    network_status: ZoneNetworkStatus
    exit_status: ZoneExitStatus
    error_status: ZoneErrorStatus
    host: str
    domid: int
    resource_status: ZoneResourceStatus
    created_at: _timestamp_pb2.Timestamp
    device_status: ZoneDeviceStatus
    ready_at: _timestamp_pb2.Timestamp
    def __init__(self, state: _Optional[_Union[ZoneState, str]] = ..., network_status: _Optional[_Union[ZoneNetworkStatus, _Mapping]] = ..., exit_status: _Optional[_Union[ZoneExitStatus, _Mapping]] = ..., error_status: _Optional[_Union[ZoneErrorStatus, _Mapping]] = ..., host: _Optional[str] = ..., domid: _Optional[int] = ..., resource_status: _Optional[_Union[ZoneResourceStatus, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., device_status: _Optional[_Union[ZoneDeviceStatus, _Mapping]] = ..., ready_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ZoneExitStatus(_message.Message):
    __slots__ = ("code",)
    CODE_FIELD_NUMBER: _ClassVar[int]
    code: int
    def __init__(self, code: _Optional[int] = ...) -> None: ...

class ZoneErrorStatus(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class ZoneResourceStatus(_message.Message):
    __slots__ = ("active_resources",)
    ACTIVE_RESOURCES_FIELD_NUMBER: _ClassVar[int]
    active_resources: ZoneResourcesSpec
    def __init__(self, active_resources: _Optional[_Union[ZoneResourcesSpec, _Mapping]] = ...) -> None: ...

class ZoneDeviceStatus(_message.Message):
    __slots__ = ("disks", "mount")
    DISKS_FIELD_NUMBER: _ClassVar[int]
    MOUNT_FIELD_NUMBER: _ClassVar[int]
    disks: _containers.RepeatedCompositeFieldContainer[ZoneDiskStatus]
    mount: ZoneMountStatus
    def __init__(self, disks: _Optional[_Iterable[_Union[ZoneDiskStatus, _Mapping]]] = ..., mount: _Optional[_Union[ZoneMountStatus, _Mapping]] = ...) -> None: ...

class ZoneDiskStatus(_message.Message):
    __slots__ = ("zone_block_device", "host_block_device", "host_image_file", "filesystem_type", "purpose", "delete")
    ZONE_BLOCK_DEVICE_FIELD_NUMBER: _ClassVar[int]
    HOST_BLOCK_DEVICE_FIELD_NUMBER: _ClassVar[int]
    HOST_IMAGE_FILE_FIELD_NUMBER: _ClassVar[int]
    FILESYSTEM_TYPE_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    zone_block_device: str
    host_block_device: str
    host_image_file: str
    filesystem_type: str
    purpose: ZoneDiskStatusDiskPurpose
    delete: bool
    def __init__(self, zone_block_device: _Optional[str] = ..., host_block_device: _Optional[str] = ..., host_image_file: _Optional[str] = ..., filesystem_type: _Optional[str] = ..., purpose: _Optional[_Union[ZoneDiskStatusDiskPurpose, str]] = ..., delete: _Optional[bool] = ...) -> None: ...

class ZoneMountStatus(_message.Message):
    __slots__ = ("device_id", "host_path", "tag")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_PATH_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    device_id: int
    host_path: str
    tag: str
    def __init__(self, device_id: _Optional[int] = ..., host_path: _Optional[str] = ..., tag: _Optional[str] = ...) -> None: ...

class MetricNode(_message.Message):
    __slots__ = ("name", "value", "format", "children")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: _struct_pb2.Value
    format: MetricFormat
    children: _containers.RepeatedCompositeFieldContainer[MetricNode]
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., format: _Optional[_Union[MetricFormat, str]] = ..., children: _Optional[_Iterable[_Union[MetricNode, _Mapping]]] = ...) -> None: ...

class ZoneNetworkOptionsSpec(_message.Message):
    __slots__ = ("assume_network_reservation", "retain_network_reservation", "dns_config", "backend")
    ASSUME_NETWORK_RESERVATION_FIELD_NUMBER: _ClassVar[int]
    RETAIN_NETWORK_RESERVATION_FIELD_NUMBER: _ClassVar[int]
    DNS_CONFIG_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    assume_network_reservation: str
    retain_network_reservation: bool
    dns_config: ZoneNetworkOptionsDnsSpec
    backend: ZoneNetworkBackend
    def __init__(self, assume_network_reservation: _Optional[str] = ..., retain_network_reservation: _Optional[bool] = ..., dns_config: _Optional[_Union[ZoneNetworkOptionsDnsSpec, _Mapping]] = ..., backend: _Optional[_Union[ZoneNetworkBackend, str]] = ...) -> None: ...

class ZoneNetworkOptionsDnsSpec(_message.Message):
    __slots__ = ("nameservers", "searches", "options")
    NAMESERVERS_FIELD_NUMBER: _ClassVar[int]
    SEARCHES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    nameservers: _containers.RepeatedScalarFieldContainer[str]
    searches: _containers.RepeatedScalarFieldContainer[str]
    options: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, nameservers: _Optional[_Iterable[str]] = ..., searches: _Optional[_Iterable[str]] = ..., options: _Optional[_Iterable[str]] = ...) -> None: ...

class ZoneNetworkIp(_message.Message):
    __slots__ = ("version", "address", "gateway")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    version: ZoneNetworkIpVersion
    address: str
    gateway: str
    def __init__(self, version: _Optional[_Union[ZoneNetworkIpVersion, str]] = ..., address: _Optional[str] = ..., gateway: _Optional[str] = ...) -> None: ...

class ZoneNetworkRoute(_message.Message):
    __slots__ = ("version", "source", "destination", "gateway", "output_interface", "scope", "table", "protocol", "kind", "pref_source")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_INTERFACE_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PREF_SOURCE_FIELD_NUMBER: _ClassVar[int]
    version: ZoneNetworkIpVersion
    source: str
    destination: str
    gateway: str
    output_interface: str
    scope: int
    table: int
    protocol: int
    kind: int
    pref_source: str
    def __init__(self, version: _Optional[_Union[ZoneNetworkIpVersion, str]] = ..., source: _Optional[str] = ..., destination: _Optional[str] = ..., gateway: _Optional[str] = ..., output_interface: _Optional[str] = ..., scope: _Optional[int] = ..., table: _Optional[int] = ..., protocol: _Optional[int] = ..., kind: _Optional[int] = ..., pref_source: _Optional[str] = ...) -> None: ...

class ZoneNetworkNeighborEntry(_message.Message):
    __slots__ = ("version", "ip_address", "link_layer_address", "attached_interface", "unreachability_detection", "kind")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LINK_LAYER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_INTERFACE_FIELD_NUMBER: _ClassVar[int]
    UNREACHABILITY_DETECTION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    version: ZoneNetworkIpVersion
    ip_address: str
    link_layer_address: str
    attached_interface: str
    unreachability_detection: ZoneNetworkNUDMode
    kind: int
    def __init__(self, version: _Optional[_Union[ZoneNetworkIpVersion, str]] = ..., ip_address: _Optional[str] = ..., link_layer_address: _Optional[str] = ..., attached_interface: _Optional[str] = ..., unreachability_detection: _Optional[_Union[ZoneNetworkNUDMode, str]] = ..., kind: _Optional[int] = ...) -> None: ...

class ZoneNetworkConfig(_message.Message):
    __slots__ = ("interfaces", "routes", "neighbors")
    INTERFACES_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    interfaces: _containers.RepeatedCompositeFieldContainer[ZoneNetworkInterfaceConfig]
    routes: _containers.RepeatedCompositeFieldContainer[ZoneNetworkRoute]
    neighbors: _containers.RepeatedCompositeFieldContainer[ZoneNetworkNeighborEntry]
    def __init__(self, interfaces: _Optional[_Iterable[_Union[ZoneNetworkInterfaceConfig, _Mapping]]] = ..., routes: _Optional[_Iterable[_Union[ZoneNetworkRoute, _Mapping]]] = ..., neighbors: _Optional[_Iterable[_Union[ZoneNetworkNeighborEntry, _Mapping]]] = ...) -> None: ...

class ZoneNetworkInterfaceConfig(_message.Message):
    __slots__ = ("zone_interface", "zone_mac", "ips", "mtu")
    ZONE_INTERFACE_FIELD_NUMBER: _ClassVar[int]
    ZONE_MAC_FIELD_NUMBER: _ClassVar[int]
    IPS_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    zone_interface: str
    zone_mac: str
    ips: _containers.RepeatedCompositeFieldContainer[ZoneNetworkIp]
    mtu: int
    def __init__(self, zone_interface: _Optional[str] = ..., zone_mac: _Optional[str] = ..., ips: _Optional[_Iterable[_Union[ZoneNetworkIp, _Mapping]]] = ..., mtu: _Optional[int] = ...) -> None: ...

class ZoneNetworkInterfaceStatus(_message.Message):
    __slots__ = ("host_interface", "zone_interface", "zone_mac", "ips", "mtu")
    HOST_INTERFACE_FIELD_NUMBER: _ClassVar[int]
    ZONE_INTERFACE_FIELD_NUMBER: _ClassVar[int]
    ZONE_MAC_FIELD_NUMBER: _ClassVar[int]
    IPS_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    host_interface: str
    zone_interface: str
    zone_mac: str
    ips: _containers.RepeatedCompositeFieldContainer[ZoneNetworkIp]
    mtu: int
    def __init__(self, host_interface: _Optional[str] = ..., zone_interface: _Optional[str] = ..., zone_mac: _Optional[str] = ..., ips: _Optional[_Iterable[_Union[ZoneNetworkIp, _Mapping]]] = ..., mtu: _Optional[int] = ...) -> None: ...

class ZoneNetworkStatus(_message.Message):
    __slots__ = ("interfaces", "routes", "neighbors")
    INTERFACES_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    interfaces: _containers.RepeatedCompositeFieldContainer[ZoneNetworkInterfaceStatus]
    routes: _containers.RepeatedCompositeFieldContainer[ZoneNetworkRoute]
    neighbors: _containers.RepeatedCompositeFieldContainer[ZoneNetworkNeighborEntry]
    def __init__(self, interfaces: _Optional[_Iterable[_Union[ZoneNetworkInterfaceStatus, _Mapping]]] = ..., routes: _Optional[_Iterable[_Union[ZoneNetworkRoute, _Mapping]]] = ..., neighbors: _Optional[_Iterable[_Union[ZoneNetworkNeighborEntry, _Mapping]]] = ...) -> None: ...

class NetworkReservation(_message.Message):
    __slots__ = ("uuid", "ipv4", "ipv6", "mac", "gateway_ipv4", "gateway_ipv6", "gateway_mac")
    UUID_FIELD_NUMBER: _ClassVar[int]
    IPV4_FIELD_NUMBER: _ClassVar[int]
    IPV6_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_IPV4_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_IPV6_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_MAC_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    ipv4: str
    ipv6: str
    mac: str
    gateway_ipv4: str
    gateway_ipv6: str
    gateway_mac: str
    def __init__(self, uuid: _Optional[str] = ..., ipv4: _Optional[str] = ..., ipv6: _Optional[str] = ..., mac: _Optional[str] = ..., gateway_ipv4: _Optional[str] = ..., gateway_ipv6: _Optional[str] = ..., gateway_mac: _Optional[str] = ...) -> None: ...

class ProcessSpec(_message.Message):
    __slots__ = ("environment", "command", "working_directory", "tty", "terminal_size", "user", "group", "stdin", "stdout", "stderr")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    WORKING_DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    TERMINAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    environment: _containers.RepeatedCompositeFieldContainer[EnvironmentVariableSpec]
    command: _containers.RepeatedScalarFieldContainer[str]
    working_directory: str
    tty: bool
    terminal_size: TerminalSize
    user: IdOrNameValue
    group: IdOrNameValue
    stdin: bool
    stdout: bool
    stderr: bool
    def __init__(self, environment: _Optional[_Iterable[_Union[EnvironmentVariableSpec, _Mapping]]] = ..., command: _Optional[_Iterable[str]] = ..., working_directory: _Optional[str] = ..., tty: _Optional[bool] = ..., terminal_size: _Optional[_Union[TerminalSize, _Mapping]] = ..., user: _Optional[_Union[IdOrNameValue, _Mapping]] = ..., group: _Optional[_Union[IdOrNameValue, _Mapping]] = ..., stdin: _Optional[bool] = ..., stdout: _Optional[bool] = ..., stderr: _Optional[bool] = ...) -> None: ...

class EnvironmentVariableSpec(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class TerminalSize(_message.Message):
    __slots__ = ("rows", "columns")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...

class IdOrNameValue(_message.Message):
    __slots__ = ("id", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class WorkloadSpec(_message.Message):
    __slots__ = ("name", "zone_id", "image", "process", "annotations", "mounts", "security", "scratch_mount", "cgroup_limits")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ZONE_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    SECURITY_FIELD_NUMBER: _ClassVar[int]
    SCRATCH_MOUNT_FIELD_NUMBER: _ClassVar[int]
    CGROUP_LIMITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    zone_id: str
    image: OciImageSpec
    process: ProcessSpec
    annotations: _containers.RepeatedCompositeFieldContainer[AnnotationSpec]
    mounts: _containers.RepeatedCompositeFieldContainer[MountSpec]
    security: WorkloadSecuritySpec
    scratch_mount: _containers.RepeatedCompositeFieldContainer[WorkloadScratchMount]
    cgroup_limits: _containers.RepeatedCompositeFieldContainer[CgroupLimit]
    def __init__(self, name: _Optional[str] = ..., zone_id: _Optional[str] = ..., image: _Optional[_Union[OciImageSpec, _Mapping]] = ..., process: _Optional[_Union[ProcessSpec, _Mapping]] = ..., annotations: _Optional[_Iterable[_Union[AnnotationSpec, _Mapping]]] = ..., mounts: _Optional[_Iterable[_Union[MountSpec, _Mapping]]] = ..., security: _Optional[_Union[WorkloadSecuritySpec, _Mapping]] = ..., scratch_mount: _Optional[_Iterable[_Union[WorkloadScratchMount, _Mapping]]] = ..., cgroup_limits: _Optional[_Iterable[_Union[CgroupLimit, _Mapping]]] = ...) -> None: ...

class MountSpec(_message.Message):
    __slots__ = ("host_path", "target_path")
    HOST_PATH_FIELD_NUMBER: _ClassVar[int]
    TARGET_PATH_FIELD_NUMBER: _ClassVar[int]
    host_path: str
    target_path: str
    def __init__(self, host_path: _Optional[str] = ..., target_path: _Optional[str] = ...) -> None: ...

class CgroupLimit(_message.Message):
    __slots__ = ("limit_name", "value")
    LIMIT_NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    limit_name: str
    value: str
    def __init__(self, limit_name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class WorkloadScratchMount(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class WorkloadSecuritySpec(_message.Message):
    __slots__ = ("strict_user_namespace", "raise_capabilities", "raise_ambient_capabilities", "drop_capabilities", "privileged", "disable_all_namespaces", "disable_namespaces", "read_only_rootfs")
    STRICT_USER_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    RAISE_CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    RAISE_AMBIENT_CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    DROP_CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGED_FIELD_NUMBER: _ClassVar[int]
    DISABLE_ALL_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    DISABLE_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_ROOTFS_FIELD_NUMBER: _ClassVar[int]
    strict_user_namespace: bool
    raise_capabilities: _containers.RepeatedScalarFieldContainer[str]
    raise_ambient_capabilities: _containers.RepeatedScalarFieldContainer[str]
    drop_capabilities: _containers.RepeatedScalarFieldContainer[str]
    privileged: bool
    disable_all_namespaces: bool
    disable_namespaces: _containers.RepeatedScalarFieldContainer[ProcessNamespace]
    read_only_rootfs: bool
    def __init__(self, strict_user_namespace: _Optional[bool] = ..., raise_capabilities: _Optional[_Iterable[str]] = ..., raise_ambient_capabilities: _Optional[_Iterable[str]] = ..., drop_capabilities: _Optional[_Iterable[str]] = ..., privileged: _Optional[bool] = ..., disable_all_namespaces: _Optional[bool] = ..., disable_namespaces: _Optional[_Iterable[_Union[ProcessNamespace, str]]] = ..., read_only_rootfs: _Optional[bool] = ...) -> None: ...

class Workload(_message.Message):
    __slots__ = ("id", "spec", "status")
    ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    id: str
    spec: WorkloadSpec
    status: WorkloadStatus
    def __init__(self, id: _Optional[str] = ..., spec: _Optional[_Union[WorkloadSpec, _Mapping]] = ..., status: _Optional[_Union[WorkloadStatus, _Mapping]] = ...) -> None: ...

class WorkloadStatus(_message.Message):
    __slots__ = ("state", "exit_status", "error_status", "block_device_status", "mount_status", "created_at")
    STATE_FIELD_NUMBER: _ClassVar[int]
    EXIT_STATUS_FIELD_NUMBER: _ClassVar[int]
    ERROR_STATUS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_DEVICE_STATUS_FIELD_NUMBER: _ClassVar[int]
    MOUNT_STATUS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    state: WorkloadState
    exit_status: WorkloadExitStatus
    error_status: WorkloadErrorStatus
    block_device_status: WorkloadBlockDeviceStatus
    mount_status: WorkloadMountStatus
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, state: _Optional[_Union[WorkloadState, str]] = ..., exit_status: _Optional[_Union[WorkloadExitStatus, _Mapping]] = ..., error_status: _Optional[_Union[WorkloadErrorStatus, _Mapping]] = ..., block_device_status: _Optional[_Union[WorkloadBlockDeviceStatus, _Mapping]] = ..., mount_status: _Optional[_Union[WorkloadMountStatus, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WorkloadBlockDeviceInfo(_message.Message):
    __slots__ = ("block_index", "device_id", "loop_device")
    BLOCK_INDEX_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    LOOP_DEVICE_FIELD_NUMBER: _ClassVar[int]
    block_index: int
    device_id: int
    loop_device: str
    def __init__(self, block_index: _Optional[int] = ..., device_id: _Optional[int] = ..., loop_device: _Optional[str] = ...) -> None: ...

class WorkloadBlockDeviceStatus(_message.Message):
    __slots__ = ("devices",)
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[WorkloadBlockDeviceInfo]
    def __init__(self, devices: _Optional[_Iterable[_Union[WorkloadBlockDeviceInfo, _Mapping]]] = ...) -> None: ...

class WorkloadMountInfo(_message.Message):
    __slots__ = ("tag", "host_path", "target_path")
    TAG_FIELD_NUMBER: _ClassVar[int]
    HOST_PATH_FIELD_NUMBER: _ClassVar[int]
    TARGET_PATH_FIELD_NUMBER: _ClassVar[int]
    tag: str
    host_path: str
    target_path: str
    def __init__(self, tag: _Optional[str] = ..., host_path: _Optional[str] = ..., target_path: _Optional[str] = ...) -> None: ...

class WorkloadMountStatus(_message.Message):
    __slots__ = ("mounts",)
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    mounts: _containers.RepeatedCompositeFieldContainer[WorkloadMountInfo]
    def __init__(self, mounts: _Optional[_Iterable[_Union[WorkloadMountInfo, _Mapping]]] = ...) -> None: ...

class WorkloadExitStatus(_message.Message):
    __slots__ = ("code",)
    CODE_FIELD_NUMBER: _ClassVar[int]
    code: int
    def __init__(self, code: _Optional[int] = ...) -> None: ...

class WorkloadErrorStatus(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class OciImageSpec(_message.Message):
    __slots__ = ("digest", "format")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    digest: str
    format: OciImageFormat
    def __init__(self, digest: _Optional[str] = ..., format: _Optional[_Union[OciImageFormat, str]] = ...) -> None: ...

class OciImageMetadata(_message.Message):
    __slots__ = ("manifest", "config")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    manifest: bytes
    config: bytes
    def __init__(self, manifest: _Optional[bytes] = ..., config: _Optional[bytes] = ...) -> None: ...

class OciImageInfo(_message.Message):
    __slots__ = ("digest", "format", "names", "metadata")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    digest: str
    format: OciImageFormat
    names: _containers.RepeatedScalarFieldContainer[str]
    metadata: OciImageMetadata
    def __init__(self, digest: _Optional[str] = ..., format: _Optional[_Union[OciImageFormat, str]] = ..., names: _Optional[_Iterable[str]] = ..., metadata: _Optional[_Union[OciImageMetadata, _Mapping]] = ...) -> None: ...

class OciImageProgress(_message.Message):
    __slots__ = ("phase", "layers", "indication")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    INDICATION_FIELD_NUMBER: _ClassVar[int]
    phase: OciImageProgressPhase
    layers: _containers.RepeatedCompositeFieldContainer[OciImageProgressLayer]
    indication: OciImageProgressIndication
    def __init__(self, phase: _Optional[_Union[OciImageProgressPhase, str]] = ..., layers: _Optional[_Iterable[_Union[OciImageProgressLayer, _Mapping]]] = ..., indication: _Optional[_Union[OciImageProgressIndication, _Mapping]] = ...) -> None: ...

class OciImageProgressLayer(_message.Message):
    __slots__ = ("id", "phase", "indication")
    ID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    INDICATION_FIELD_NUMBER: _ClassVar[int]
    id: str
    phase: OciImageProgressLayerPhase
    indication: OciImageProgressIndication
    def __init__(self, id: _Optional[str] = ..., phase: _Optional[_Union[OciImageProgressLayerPhase, str]] = ..., indication: _Optional[_Union[OciImageProgressIndication, _Mapping]] = ...) -> None: ...

class OciImageProgressIndication(_message.Message):
    __slots__ = ("bar", "spinner", "hidden", "completed")
    BAR_FIELD_NUMBER: _ClassVar[int]
    SPINNER_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    bar: OciImageProgressIndicationBar
    spinner: OciImageProgressIndicationSpinner
    hidden: OciImageProgressIndicationHidden
    completed: OciImageProgressIndicationCompleted
    def __init__(self, bar: _Optional[_Union[OciImageProgressIndicationBar, _Mapping]] = ..., spinner: _Optional[_Union[OciImageProgressIndicationSpinner, _Mapping]] = ..., hidden: _Optional[_Union[OciImageProgressIndicationHidden, _Mapping]] = ..., completed: _Optional[_Union[OciImageProgressIndicationCompleted, _Mapping]] = ...) -> None: ...

class OciImageProgressIndicationBar(_message.Message):
    __slots__ = ("message", "current", "total", "is_bytes")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    IS_BYTES_FIELD_NUMBER: _ClassVar[int]
    message: str
    current: int
    total: int
    is_bytes: bool
    def __init__(self, message: _Optional[str] = ..., current: _Optional[int] = ..., total: _Optional[int] = ..., is_bytes: _Optional[bool] = ...) -> None: ...

class OciImageProgressIndicationSpinner(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class OciImageProgressIndicationHidden(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OciImageProgressIndicationCompleted(_message.Message):
    __slots__ = ("message", "total", "is_bytes")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    IS_BYTES_FIELD_NUMBER: _ClassVar[int]
    message: str
    total: int
    is_bytes: bool
    def __init__(self, message: _Optional[str] = ..., total: _Optional[int] = ..., is_bytes: _Optional[bool] = ...) -> None: ...

class OciRegistryUsernamePassword(_message.Message):
    __slots__ = ("username", "password")
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    username: str
    password: str
    def __init__(self, username: _Optional[str] = ..., password: _Optional[str] = ...) -> None: ...

class OciRegistryAuthentication(_message.Message):
    __slots__ = ("username_password", "raw_basic_auth", "identity_token", "registry_token")
    USERNAME_PASSWORD_FIELD_NUMBER: _ClassVar[int]
    RAW_BASIC_AUTH_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    username_password: OciRegistryUsernamePassword
    raw_basic_auth: str
    identity_token: str
    registry_token: str
    def __init__(self, username_password: _Optional[_Union[OciRegistryUsernamePassword, _Mapping]] = ..., raw_basic_auth: _Optional[str] = ..., identity_token: _Optional[str] = ..., registry_token: _Optional[str] = ...) -> None: ...

class HostCpuTopologyInfo(_message.Message):
    __slots__ = ("core", "socket", "node", "thread")
    CORE_FIELD_NUMBER: _ClassVar[int]
    SOCKET_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    THREAD_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    core: int
    socket: int
    node: int
    thread: int
    def __init__(self, core: _Optional[int] = ..., socket: _Optional[int] = ..., node: _Optional[int] = ..., thread: _Optional[int] = ..., **kwargs) -> None: ...

class DeviceInfo(_message.Message):
    __slots__ = ("name", "claimed", "owner_zone")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_FIELD_NUMBER: _ClassVar[int]
    OWNER_ZONE_FIELD_NUMBER: _ClassVar[int]
    name: str
    claimed: bool
    owner_zone: str
    def __init__(self, name: _Optional[str] = ..., claimed: _Optional[bool] = ..., owner_zone: _Optional[str] = ...) -> None: ...
