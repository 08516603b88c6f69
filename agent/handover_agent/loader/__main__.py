"""The child process: compile with BCC, load, pin, end. Says what went wrong on stderr."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from handover_agent import features
from handover_agent.bpfsys import BpfError
from handover_agent.hooks import NODE_PROGRAMS, PACKET_PROGRAMS, Hook
from handover_agent.loader.btf import Btf, BtfError
from handover_agent.loader.compiler import CompileError, compile_programs
from handover_agent.loader.headers import NoHeaders, find_headers
from handover_agent.loader.programs import pin_programs


def compiled(set_retval: bool) -> dict[str, bytes]:
    """The programs for a kernel that has these features. Raises CompileError, NoHeaders."""
    defines = ["HAVE_SET_RETVAL"] * set_retval
    headers = find_headers()
    return {
        **compile_programs(headers, defines),
        **compiled_for_packets([*defines, *sender_defines()]),
    }


def compiled_for_packets(defines: Sequence[str]) -> dict[str, bytes]:
    """The packet path's programs. Raises CompileError, NoHeaders."""
    names = [program.name for program in packet_programs()]
    return compile_programs(find_headers(), defines, "packet.c", names)


def sender_defines() -> list[str]:
    """How this kernel lets a program find the network namespace of a packet's socket (bpf/sender.h); [] if it does
    not.
    """
    if features.packet_netns():
        return ["HAVE_PACKET_NETNS"]
    return sender_offsets() if features.reads_kernel() else []


def sender_offsets() -> list[str]:
    """Where a socket has its network namespace, and that its cookie; [] where the kernel does not say."""
    try:
        types = Btf.of_kernel()
        net, cookie = types.offset("sock_common", "skc_net"), types.offset("net", "net_cookie")
    except BtfError:
        return []
    return [f"NET_IN_SOCKET={net}", f"COOKIE_IN_NET={cookie}"]


def packet_programs() -> list[Hook]:
    """What this kernel can have for its devices."""
    return [hook for hook in PACKET_PROGRAMS if features.redirect_neigh() or hook not in NODE_PROGRAMS]


def main(arguments: list[str]) -> int:
    """Exit status 0 when every program is pinned."""
    parser = argparse.ArgumentParser(prog="python -m handover_agent.loader", description=__doc__)
    parser.add_argument("--maps", type=Path, required=True, help="directory of the pinned maps")
    parser.add_argument(
        "--programs", type=Path, required=True, help="directory for the programs; it exists, and is empty"
    )
    parser.add_argument("--set-retval", action="store_true", help="the kernel has bpf_set_retval (5.18)")
    given = parser.parse_args(arguments)
    try:
        pin_programs(compiled(given.set_retval), given.maps, given.programs)
    except (CompileError, NoHeaders, BpfError, FileNotFoundError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the parent reads it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
