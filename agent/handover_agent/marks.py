"""Bits of a packet's mark: what the packet path's programs ask the kernel's own rules to do (bpf/consts.h).

The programs add these bits to whatever mark a packet has; what others put there stays. Others mark packets too, and
no bit is free everywhere: the upper half belongs to Calico, kube-router, Weave and Tailscale, 0xe000 to Kubernetes and
the CNI plug-in portmap, 0x00ff to clouds. So each of ours is several bits, and means something only when all of them
are set.
"""

from enum import IntFlag


class Mark(IntFlag):
    """enum mark."""

    OURS = 0x0500  # translated by us: to be forwarded
    MASQUERADE = 0x1500  # and the source becomes this node's address, from a port that is no frontend's
    REFUSE = 0x0D00  # to be answered with a TCP reset or with port unreachable
