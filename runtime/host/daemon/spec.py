"""From a zone's request and addresses to the domain it needs: pure but for the seed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pipeline.bundle.model import Launch, LaunchNetwork, Port
from pipeline.jsonmodel import to_json
from runtime.boot.launch import launch_segment
from runtime.boot.model import Disk, DomainSpec, FileRange, Vif
from runtime.host.daemon import confinement, volumes
from runtime.host.daemon.disks import ADDONS, INTERFACE, ROOTFS, Devices, directories, scratch, volume_disks
from runtime.host.daemon.model import BootRequest, PortRule
from runtime.host.daemon.zone import Run
from runtime.host.sources import Source
from runtime.net.addresses import ZoneAddresses
from runtime.net.layouts import layout_of


def rules_of(request: BootRequest) -> tuple[PortRule, ...]:
    """The ports a zone is published on: the request's, or the bundle's as they stand."""
    if request.ports is not None:
        return request.ports

    def rule(port: Port) -> PortRule:
        return PortRule(
            port.zone_port,
            address=port.host_address,
            port=port.host_port,
            host_address=port.host_address,
            host_port=port.host_port,
            protocol=port.protocol,
        )

    return tuple(rule(port) for port in request.bundle.ports)


def launch_of(request: BootRequest, addresses: ZoneAddresses, devices: Devices) -> Launch:
    """What only this host knows, for the zone's init. devices: of its volumes that are devices of this host."""
    bundle, layout = request.bundle, layout_of(request.bundle.network.engine)
    network = LaunchNetwork(
        interface=INTERFACE,
        mtu=bundle.network.mtu,
        addresses=(f"{addresses.zone4}/{addresses.prefix4}", f"{addresses.zone6}/{addresses.prefix6}"),
        gateways=(addresses.gateway4, addresses.gateway6),
        nameservers=bundle.network.nameservers or layout.name_servers(addresses),
        search=bundle.network.search,
        options=bundle.network.options,
        rto_min_ms=layout.rto_min_ms,
    )
    return Launch(
        hostname=bundle.hostname,
        seed=os.urandom(32).hex(),
        modules=bundle.modules,
        process=bundle.process if bundle.process.argv else None,  # none: the zone idles
        root=ROOTFS,
        addons=ADDONS if bundle.addons else "",
        late_modules=bundle.late_modules,
        readonly_root=bundle.readonly_root,
        overlay_size_mib=bundle.overlay_size_mib,
        network=network,
        disks=tuple(volume_disks(bundle)),
        sysctls=bundle.sysctls,
        scratch=scratch(bundle, devices),
        extra=_extra(request, devices),
    )


def _extra(request: BootRequest, devices: Devices) -> dict[str, Any]:
    """What not every zone has; `container` is more of the spec that runtime.init.container takes."""
    bundle = request.bundle
    container = confinement.container_keys(bundle) if bundle.process.argv else {}
    container["mounts"] = volumes.mounts(bundle, devices)
    extra = {
        "stdin_open": request.stdin_open,
        "healthcheck": to_json(bundle.healthcheck) if bundle.healthcheck and bundle.process.argv else None,
        "container": {key: value for key, value in container.items() if value},
        "refused": confinement.refused(bundle),
    }
    return {key: value for key, value in extra.items() if value}


def domain_spec(
    request: BootRequest,
    run: Run,
    launch: Launch,
    *,
    kernel: Source,
    initrd: Sequence[Source],
    disks: Sequence[Disk],
) -> DomainSpec:
    """The domain of a run."""
    bundle = request.bundle
    return DomainSpec(
        name=bundle.name,
        uuid=run.uuid,
        memory_mib=bundle.resources.memory_mib,
        memory_max_mib=max(bundle.resources.memory_max_mib, bundle.resources.memory_mib),
        vcpus=bundle.resources.vcpus,
        vcpus_max=max(bundle.resources.vcpus_max, bundle.resources.vcpus),
        cmdline=bundle.cmdline,
        kernel=FileRange(str(kernel.path), bundle.kernel.size_bytes),
        ramdisk=tuple(
            FileRange(str(source.path), part.size_bytes) for source, part in zip(initrd, bundle.initrd, strict=True)
        ),
        launch_segment=launch_segment(launch),
        disks=tuple(disks),
        vif=Vif(mac=run.addresses.zone_mac, mtu=bundle.network.mtu),
        shares=tuple(directories(bundle)),
    )
