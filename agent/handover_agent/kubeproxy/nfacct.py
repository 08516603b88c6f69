"""Accounting objects that kube-proxy's rules count with (`-m nfacct`).

A rule that names one can only be added while the object exists. kube-proxy makes them at its start and never
removes them, so after a flush they are still there; after a reboot they are not, and a restore would fail.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable

from handover_agent.kubeproxy.command import bytes_of
from handover_agent.kubeproxy.errors import KubeProxyError

_NETLINK_NETFILTER = 12
_NFNL_SUBSYS_ACCT = 7
_NFNL_MSG_ACCT_NEW = 0
_NFACCT_NAME = 1
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE, _NLM_F_EXCL = 0x1, 0x4, 0x400, 0x200
_NAME_MAX = 32
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_FAMILY = struct.Struct("=BBH")  # nfgenmsg


def ensure(names: Iterable[str]) -> None:
    """Create the objects that do not exist yet. Raises KubeProxyError."""
    wanted = sorted(set(names))
    if not wanted:
        return
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        for number, name in enumerate(wanted, 1):
            netlink.send(_request(number, name))
            answer = netlink.recv(4096)
            code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
            if code not in {0, errno.EEXIST}:
                raise KubeProxyError(
                    f"cannot create the nfacct object {name!r} that kube-proxy's rules count with: "
                    f"{os.strerror(code)}; does the kernel have nfnetlink_acct?"
                )


def _request(number: int, name: str) -> bytes:
    value = bytes_of(name) + b"\0"
    if len(value) > _NAME_MAX:
        raise KubeProxyError(f"an nfacct object's name has at most {_NAME_MAX - 1} bytes: {name!r}")
    attribute = struct.pack("=HH", 4 + len(value), _NFACCT_NAME) + value
    attribute += b"\0" * (-len(attribute) % 4)
    length = _HEADER.size + _FAMILY.size + len(attribute)
    kind = _NFNL_SUBSYS_ACCT << 8 | _NFNL_MSG_ACCT_NEW
    flags = _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL
    return _HEADER.pack(length, kind, flags, number, 0) + _FAMILY.pack(socket.AF_UNSPEC, 0, 0) + attribute
