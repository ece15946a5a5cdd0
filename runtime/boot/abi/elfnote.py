"""ELF64 headers and the Xen notes in a kernel.

Source: System V ABI (ELF64), xen/include/public/elfnote.h.
"""

from __future__ import annotations

import struct

# e_ident, e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize, e_phnum,
# e_shentsize, e_shnum, e_shstrndx
ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
ELF_IDENT_64_LSB = b"\x7fELF\x02\x01\x01"
ET_EXEC = 2
ET_DYN = 3
EM_X86_64 = 62
# p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
PT_LOAD = 1
PT_NOTE = 4
NOTE_HEADER = struct.Struct("<III")  # namesz, descsz, type
XEN_OWNER = b"Xen\0"

ENTRY = 1
HYPERCALL_PAGE = 2
VIRT_BASE = 3
PADDR_OFFSET = 4
XEN_VERSION = 5
GUEST_OS = 6
GUEST_VERSION = 7
LOADER = 8
PAE_MODE = 9
FEATURES = 10
INIT_P2M = 15
MOD_START_PFN = 16
PHYS32_ENTRY = 18
