"""A ZoneSpec, checked field by field, into what the core boots: a bundle without an image, whose zone idles."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from pipeline.bundle.cmdline import command_line
from pipeline.bundle.dns import parse_dns
from pipeline.bundle.errors import BadSpec
from pipeline.bundle.model import Bundle, ModuleWish, Network, Process, Resources
from pipeline.bundle.scratch import parse_scratch
from pipeline.bundle.spec import NAME, ZoneSpec, hostname_of
from pipeline.kernelconfig import mountable
from pipeline.oci import Digest
from runtime.host.api import common_pb2 as pb
from runtime.host.daemon.errors import BadRequest
from runtime.host.images.model import Assembled, AssembleWork, Platform
from runtime.host.serve.answers import NotServed

DEFAULT_MEMORY_MIB = 256
MEMORY_MAX_MIB = 1 << 24
VCPUS_MAX = 128
_MODULE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WORD = re.compile(r"[!#-~]+")  # of a command line: printable, without blanks and quotes
_SYSCTL = re.compile(r"[A-Za-z0-9_/.-]{1,128}")


@dataclass(frozen=True)
class Wanted:
    """A checked ZoneSpec. kernel, init, addons: digests of images; "" for the platform's."""

    name: str
    resources: Resources
    network: Network
    cmdline: str
    kernel: str
    init: str
    addons: tuple[str, ...]
    modules: tuple[ModuleWish, ...]
    sysctls: dict[str, str]
    annotations: dict[str, str]
    scratch: str = ""
    scratch_mib: int = 0

    @property
    def custom(self) -> bool:
        """Is there anything to assemble?"""
        return bool(self.kernel or self.init or self.addons or self.modules)

    def assemble_work(self, platform: Platform | None) -> AssembleWork:
        """What a child has to do before this can be booted."""
        return AssembleWork(self.name, platform, self.kernel, self.init, self.addons, self.modules)


def check(spec: pb.ZoneSpec) -> Wanted:
    """Raises BadRequest for what makes no sense, NotServed for what zones here do not have; both name the field."""
    name = spec.name or f"zone-{secrets.token_hex(4)}"
    if not NAME.fullmatch(name):
        raise _bad("name", "letters, digits, - and _, at most 63", name)
    if spec.devices:
        raise _not_served("devices", f"device {spec.devices[0].name}", "this host hands out none")
    if spec.virtualization_options.backend == pb.ZONE_VIRTUALIZATION_BACKEND_PVH:
        raise _not_served("virtualization_options.backend", "PVH", "zones are PV domains")
    modules, words = _kernel_options(spec.kernel_options)
    scratch, scratch_mib = _scratch(spec.scratch_disk)
    return Wanted(
        name=name,
        resources=check_resources(spec.initial_resources),
        network=_network(spec.network_options),
        cmdline=_cmdline(name, spec.kernel_options, words),
        kernel=_digest("kernel", spec.kernel),
        init=_digest("initrd", spec.initrd),
        addons=tuple(_digest(f"addons[{index}]", image) for index, image in enumerate(spec.addons)),
        modules=modules,
        sysctls=_sysctls(spec.kernel_options),
        annotations={annotation.key: annotation.value for annotation in spec.annotations},
        scratch=scratch,
        scratch_mib=scratch_mib,
    )


def bundle(wanted: Wanted, parts: Assembled) -> Bundle:
    """What is booted: it has no process, so the zone idles until a workload is put into it."""
    return Bundle(
        name=wanted.name,
        kernel=parts.kernel,
        kernel_release=parts.release,
        initrd=parts.initrd,
        modules=parts.modules,
        rootfs=parts.root,
        process=Process(argv=(), env=()),
        resources=wanted.resources,
        network=wanted.network,
        hostname=hostname_of(wanted.name),
        cmdline=wanted.cmdline,
        addons=parts.addons,
        late_modules=parts.late_modules,
        extensions=parts.extensions,
        annotations=wanted.annotations,
        sysctls=wanted.sysctls,
        filesystems=parts.filesystems,
        scratch=wanted.scratch,
        scratch_mib=wanted.scratch_mib,
    )


def default_parts(platform: Platform) -> Assembled:
    """The platform as it is."""
    initrd = platform.initrd
    segments = (initrd.base, initrd.modules_segment)
    return Assembled(
        initrd.kernel_elf,
        initrd.release,
        segments,
        initrd.modules,
        platform.root,
        addons=initrd.addons,
        filesystems=mountable(initrd.filesystems, (module.path for module in initrd.modules)),
    )


def check_resources(asked: pb.ZoneResourcesSpec) -> Resources:
    """Defaults for what is 0. Raises BadRequest, NotServed."""
    if asked.adjustment_policy == pb.ZONE_RESOURCE_ADJUSTMENT_POLICY_DYNAMIC:
        raise _not_served("initial_resources.adjustment_policy", "DYNAMIC", "UpdateZoneResources moves memory")
    memory = asked.target_memory or min(
        asked.max_memory or DEFAULT_MEMORY_MIB, max(DEFAULT_MEMORY_MIB, asked.min_memory)
    )
    memory_max = asked.max_memory or memory
    vcpus = asked.target_cpus or max(1, asked.min_cpus)
    vcpus_max = asked.max_cpus or vcpus
    for unit, low, target, high, limit in (
        ("memory", asked.min_memory, memory, memory_max, MEMORY_MAX_MIB),
        ("cpus", asked.min_cpus, vcpus, vcpus_max, VCPUS_MAX),
    ):
        if not low <= target <= high <= limit:
            expected = f"min <= target <= max <= {limit}"
            raise _bad(f"initial_resources.*_{unit}", expected, f"{low}, {target} and {high}")
    return Resources(memory, memory_max, vcpus, vcpus_max)


def _scratch(disk: pb.ZoneScratchDiskSpec) -> tuple[str, int]:
    """A device of this host, or the size in MiB of a disk it makes; ("", 0) for neither: memory."""
    if disk.block.device:
        raise _not_served("scratch_disk.block.device", disk.block.device, "this host hands out none by name; path")
    backend = disk.WhichOneof("backend")
    if backend is None:
        return "", 0
    text = disk.block.path if backend == "block" else str(disk.image.size)
    try:
        scratch, size_mib = parse_scratch(text, subject="zone spec: scratch_disk")
    except BadSpec as error:
        raise BadRequest(error.subject, expected=error.expected, got=error.got) from None
    if bool(scratch) != (backend == "block"):
        raise _bad("scratch_disk.block.path", "a block device of this host", text)
    return scratch, size_mib


def _network(options: pb.ZoneNetworkOptionsSpec) -> Network:
    if options.backend != pb.ZONE_NETWORK_BACKEND_DEFAULT:
        backend = pb.ZoneNetworkBackend.Name(options.backend)
        raise _not_served("network_options.backend", backend, "every zone has a network of its own")
    field = "zone spec: network_options.dns_config"
    dns = options.dns_config
    try:
        found = parse_dns(
            dns.nameservers,
            dns.searches,
            dns.options,
            subjects=(f"{field}.nameservers", f"{field}.searches", f"{field}.options"),
        )
    except BadSpec as error:
        raise BadRequest(error.subject, expected=error.expected, got=error.got) from None
    return Network(nameservers=found.nameservers, search=found.search, options=found.options)


# -- the kernel --------------------------------------------------------------------------------------------------------


def _kernel_options(options: pb.KernelOptionsSpec) -> tuple[tuple[ModuleWish, ...], list[str]]:
    """Modules to load, with what they are told; words for the command line: parameters of built-in ones."""
    names = list(dict.fromkeys(name.replace("-", "_") for name in options.modules))
    told: dict[str, list[str]] = {name: [] for name in names}
    words = []
    for name in names:
        if not _MODULE.fullmatch(name):
            raise _bad("kernel_options.modules", "names of modules", name)
    for parameter in options.module_parameters:
        name = parameter.module.replace("-", "_")
        if not _MODULE.fullmatch(name) or not _WORD.fullmatch(parameter.parameter):
            got = f"{parameter.module} {parameter.parameter}"
            raise _bad("kernel_options.module_parameters", "a module and one word such as debug=1", got)
        if name in told:
            told[name].append(parameter.parameter)
        else:
            words.append(f"{name}.{parameter.parameter}")
    return tuple(ModuleWish(name, " ".join(parameters)) for name, parameters in told.items()), words


def _sysctls(options: pb.KernelOptionsSpec) -> dict[str, str]:
    for setting in options.sysctl_parameters:
        if not _SYSCTL.fullmatch(setting.key) or not setting.value.isprintable():
            raise _bad("kernel_options.sysctl_parameters", "a key and a value", f"{setting.key}={setting.value}")
    return {setting.key: setting.value for setting in options.sysctl_parameters}


def _cmdline(name: str, options: pb.KernelOptionsSpec, words: list[str]) -> str:
    more = [*words, *options.cmdline, options.cmdline_append]
    for word in more:
        if not word.isprintable() or not word.isascii():
            raise _bad("kernel_options.cmdline", "printable ASCII", word)
    appended = " ".join(word for word in more if word)
    return command_line(ZoneSpec(name, "", verbose=options.verbose, cmdline_append=appended))


def _digest(field: str, image: pb.OciImageSpec) -> str:
    return str(Digest.parse(image.digest)) if image.digest else ""


def _bad(field: str, expected: str, got: str) -> BadRequest:
    return BadRequest(f"zone spec: {field}", expected=expected, got=repr(got)[:120])


def _not_served(field: str, got: str, why: str) -> NotServed:
    return NotServed(f"zone spec: {field}", got=got, hint=why)
