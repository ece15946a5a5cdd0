"""Bundle: from image config and zone spec to the zone bundle.

Takes:   a ZoneSpec and the results of fetch, unpack, squash, initrd and assemble.
Gives:   BundleResult: the manifest of an OCI artifact in the store, tagged `zones/NAME`, that names kernel, initrd
         segments, rootfs, addons and volumes by digest and carries the resolved process, resources, ports and network.
Tools:   none.   Privileges: none.   Network: none.

The runtime imports all of it but `stage`, which pulls in the other stages.
"""

VERSION = 12
