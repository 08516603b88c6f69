"""Bits of a packet's mark: what the packet path's programs ask the kernel's own rules to do (bpf/consts.h).

The programs add these bits to whatever mark a packet has; what others put there stays.
"""

from enum import IntFlag


class Mark(IntFlag):
    """enum mark."""

    MASQUERADE = 0x10000  # the source becomes this node's address, from a port that is no frontend's
    OURS = 0x20000  # translated by us: to be forwarded
    REFUSE = 0x40000  # to be answered with a TCP reset or with port unreachable
