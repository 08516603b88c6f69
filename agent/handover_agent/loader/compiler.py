"""C to BPF instructions, by BCC. The only module that imports it.

BCC serves as a compiler alone: what the instructions leave open is filled in when they are loaded (`filling`).
"""

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from handover_agent.hooks import HOOKS, PACKET_PROGRAMS
from handover_agent.loader.headers import find_headers

SOURCES = {
    "socket.c": tuple(hook.name for hook in HOOKS),
    "packet.c": tuple(hook.name for hook in PACKET_PROGRAMS),
}


class CompileError(Exception):
    """The C sources do not compile with these headers; the compiler's own words are on stderr."""


def compile_all() -> dict[str, bytes]:
    """Every program → its instructions, maps and abilities as numbers. Raises CompileError, NoHeaders."""
    headers = find_headers()
    return {
        name: code
        for source, programs in SOURCES.items()
        for name, code in compile_programs(headers, source, programs).items()
    }


def compile_programs(headers: Path, source: str, programs: Sequence[str]) -> dict[str, bytes]:
    """The same for programs of one source. `headers`: a merged tree of kernel headers."""
    os.environ["BCC_KERNEL_SOURCE"] = str(headers)
    from bcc import BPF  # noqa: PLC0415 - costs 70 MB, and reads the environment

    with resources.as_file(resources.files("handover_agent").joinpath("bpf")) as sources:
        # Nobody reads the debugging information that BCC asks for; it is a quarter of the compiler's work.
        flags = [f"-I{sources}", "-DHANDOVER_BCC", "-Wall", "-g0"]
        try:
            module = BPF(src_file=str(sources / source), cflags=flags)
        except Exception as error:  # BCC raises bare Exceptions
            raise CompileError(
                f"BCC cannot compile {sources / source} with headers {headers}: {error}"
            ) from error
    return {name: module.dump_func(name.encode()) for name in programs}
