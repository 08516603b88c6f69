"""The first and only program of the machine: loads the datapath, counts, lets connections through, powers off.

It runs on the agent's own interpreter in the agent's own image. Each finding is a line of JSON on the console;
an error is one too, so that whoever reads sees the traceback of a machine that is gone.
"""

import ctypes
import errno
import fcntl
import json
import os
import platform
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from handover_agent.bpfsys import obj_get, object_info
from handover_agent.datapath import Datapath
from handover_agent.packetpath import rules
from handover_agent.sockets.refusal import refuse
from handover_agent.table import Backend, FrontendFlags, FrontendKey, FrontendValue, Protocol, ip_bytes

from e2e.kernels import packets, wiring

MARK = "HANDOVER "
END = "HANDOVER-END"
_LIBC = ctypes.CDLL(None, use_errno=True)
_FINIT_MODULE = 313
_POWER_OFF = 0x4321FEDC
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_VERIFIED_INSNS, _INFO_BYTES = 216, 232  # struct bpf_prog_info
_CGROUPS = Path("/sys/fs/cgroup")
_SERVED = _CGROUPS / "served"
_VIP, _VIP6, _EMPTY, _PORT = "10.96.0.10", "fd00:96::10", "10.96.0.11", 80


def say(kind: str, **facts: object) -> None:
    print(MARK + json.dumps({"kind": kind, **facts}), flush=True)


def mount(what: str, where: str, flavour: str) -> None:
    Path(where).mkdir(parents=True, exist_ok=True)
    if _LIBC.mount(what.encode(), where.encode(), flavour.encode(), 0, None):
        number = ctypes.get_errno()
        if number != errno.EBUSY:
            raise OSError(number, f"mount {flavour} at {where}: {os.strerror(number)}")


def insert_modules() -> None:
    for path in sorted(Path("/modules").glob("*.ko")):
        with path.open("rb") as module:
            if _LIBC.syscall(_FINIT_MODULE, module.fileno(), b"", 0):
                number = ctypes.get_errno()
                if number != errno.EEXIST:
                    say("module", name=path.name, problem=os.strerror(number))


def up(device: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", device, _IFF_UP))


def count_instructions(pins: Path) -> None:
    """What the verifier went through for each pinned program, and how long each is."""
    for path in sorted(pins.glob("programs-*/*")):
        with obj_get(path) as program:
            info = object_info(program.fd, _INFO_BYTES)
        (translated,) = struct.unpack_from("=I", info, 20)
        (verified,) = struct.unpack_from("=I", info, _VERIFIED_INSNS)
        say("program", name=path.name, verified=verified, instructions=translated // 8)


@contextmanager
def served() -> Iterator[None]:
    """This process is where the datapath sees its sockets."""
    (_SERVED / "cgroup.procs").write_text("0")
    yield
    (_CGROUPS / "cgroup.procs").write_text("0")


def connections(datapath: Datapath, refuses: bool) -> None:
    """The socket path at work: connections that are translated, their peers' names, one that is refused."""
    for loopback, vip in (("127.0.0.1", _VIP), ("::1", _VIP6)):
        family = socket.AF_INET6 if ":" in vip else socket.AF_INET
        with socket.create_server((loopback, 0), family=family) as server, datapath.maps() as maps:
            maps.write_backends(0, [Backend(ip_bytes(loopback), server.getsockname()[1])])
            maps.write_frontends({FrontendKey(ip_bytes(vip), _PORT, Protocol.TCP): FrontendValue(0, 1, 1)})
            with socket.create_connection((vip, _PORT), 30) as client:
                accepted, _ = server.accept()
                say(
                    "connection",
                    what=f"translated to {loopback}",
                    ok=client.getpeername()[:2] == (vip, _PORT),
                )
                accepted.close()
    nobody = {
        FrontendKey(ip_bytes(_EMPTY), _PORT, Protocol.TCP): FrontendValue(0, 0, 2, FrontendFlags.REFUSE)
    }
    with datapath.maps() as maps, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        maps.write_frontends(nobody)
        client.settimeout(30 if refuses else 0.5)
        status = client.connect_ex((_EMPTY, _PORT))
    if refuses:
        say("connection", what="refused", ok=status == errno.ECONNREFUSED)
    else:
        say("connection", what="left to the stack", ok=datapath.counters()["refuse_left"] == 1)


def told(datapath: Datapath) -> None:
    """A connected UDP socket is noticed when it sends to a backend that serves no more, and learns of it."""
    frontend = FrontendKey(ip_bytes(_VIP), _PORT, Protocol.UDP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, datapath.maps() as maps:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        other = Backend(ip_bytes("127.0.0.1"), port - 1)
        maps.write_backends(1, [Backend(ip_bytes("127.0.0.1"), port), other])
        maps.write_frontends({frontend: FrontendValue(1, 1, 3)})
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((_VIP, _PORT))
            client.settimeout(30)
            maps.write_frontends({frontend: FrontendValue(2, 1, 3)})
            looking = datapath.remembered.watch_stranded({frontend: {other}})
            client.send(b"?")
            notes = datapath.remembered.noted_stranded()
            found = [note.source.port for note in notes] == [client.getsockname()[1]]
            say("connection", what="of a UDP socket found", ok=looking and found)
            refuse(notes)
            try:
                client.recv(1)
                say("connection", what="of a UDP socket told", ok=False)
            except OSError as error:
                say("connection", what="of a UDP socket told", ok=error.errno == errno.ECONNREFUSED)


def packet_by_packet(datapath: Datapath, names: wiring.Namespaces) -> None:
    """The packet path at work, on devices that the agent has found by itself."""
    rules.ensure()
    with datapath.maps() as maps:
        packets.expose(maps)
    for what, attempt in packets.attempts(names, node="redirect_neigh" in datapath.probe_features().found):
        before = datapath.counters()
        problem = ""
        try:
            ok = attempt()
        except OSError as error:
            ok, problem = False, str(error)
        counted = {name: n - before[name] for name, n in datapath.counters().items() if n != before[name]}
        say("connection", what=what, ok=ok, problem="" if ok else f"{problem} {counted}".strip())
    rules.remove()


def look() -> None:
    """The commands that a person would run."""
    for command in ("services", "maps", "drops", "flows"):
        done = subprocess.run(["handover-agent", command], capture_output=True, text=True, check=False)
        say("command", name=command, status=done.returncode, problem=done.stderr if done.returncode else "")


def main() -> None:
    for what, where in (
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
    ):
        mount(what, where, what)
    mount("cgroup2", str(_CGROUPS), "cgroup2")
    _SERVED.mkdir()
    mount("bpf", "/sys/fs/bpf", "bpf")
    os.environ["PATH"] = "/opt/handover/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    os.environ["BCC_KERNEL_SOURCE"] = "/usr/share/handover/kernel-headers"
    up(b"lo")
    insert_modules()
    say("kernel", release=platform.release())

    names = wiring.wire()
    pins = Path("/sys/fs/bpf/handover")
    datapath = Datapath(pins, _SERVED)
    features = datapath.probe_features()
    say("features", found=features.found, missing=features.missing, lacking=features.lacking)
    began = time.monotonic()
    datapath.load()
    say("loaded", seconds=round(time.monotonic() - began, 1))
    count_instructions(pins)
    datapath.attach()
    with served():
        connections(datapath, "set_retval" in features.found)
        told(datapath)
    packet_by_packet(datapath, names)
    look()
    datapath.unload()
    say("unloaded", left=[str(path) for path in pins.glob("*")])


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        say("error", text=traceback.format_exc())
    print(END, flush=True)
    sys.stdout.flush()
    time.sleep(0.5)
    _LIBC.reboot(_POWER_OFF)
    time.sleep(60)
