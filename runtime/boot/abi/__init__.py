"""Numbers and layouts of Xen's interfaces, each with the header it comes from; no behaviour.

Every structure is little-endian x86-64. `xen/include/public` is Xen's tree, `include/uapi/xen` Linux's.
"""
