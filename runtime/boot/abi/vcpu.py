"""struct vcpu_guest_context of x86-64: offsets of the fields a first vCPU needs; all others stay zero.

Source: xen/include/public/arch-x86/xen.h (vcpu_guest_context), arch-x86/xen-x86_64.h (cpu_user_regs, flat segments).
"""

from __future__ import annotations

BYTES = 5168
FLAGS = 512  # after the 512 bytes of FPU state
USER_REGS = 520
RSI = USER_REGS + 104
RIP = USER_REGS + 128
CS = USER_REGS + 136
RFLAGS = USER_REGS + 144
RSP = USER_REGS + 152
SS = USER_REGS + 160
KERNEL_SS = 4968
KERNEL_SP = 4976
CR3 = 4984 + 3 * 8
DR6 = 5048 + 6 * 8
DR7 = 5048 + 7 * 8

VGCF_IN_KERNEL = 1 << 2
VGCF_ONLINE = 1 << 5
FLAT_KERNEL_CS = 0xE033
FLAT_KERNEL_SS = 0xE02B
RFLAGS_IF = 0x200
DR6_DEFAULT = 0xFFFF0FF0
DR7_DEFAULT = 0x400
