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
from pathlib import Path

from handover_agent.bpfsys import obj_get, object_info
from handover_agent.datapath import Datapath
from handover_agent.devices import Device, Place, Role
from handover_agent.packetpath import attaching
from handover_agent.rtnetlink import CREATE, EXCLUSIVE, RouteSocket, attribute
from handover_agent.sockets.refusal import refuse
from handover_agent.table import Backend, FrontendFlags, FrontendKey, FrontendValue, Protocol, ip_bytes

MARK = "HANDOVER "
END = "HANDOVER-END"
_LIBC = ctypes.CDLL(None, use_errno=True)
_FINIT_MODULE = 313
_POWER_OFF = 0x4321FEDC
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_VERIFIED_INSNS, _INFO_BYTES = 216, 232  # struct bpf_prog_info
_NEWLINK = 16
_LINK = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)  # struct ifinfomsg
_IFLA_IFNAME, _IFLA_LINKINFO, _INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 3, 18, 1, 2, 1
_VIP, _EMPTY, _PORT = "10.96.0.10", "10.96.0.11", 80


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


def connections(datapath: Datapath) -> None:
    """The socket path at work: a connection that is translated, its peer's name, one that is refused."""
    with socket.create_server(("127.0.0.1", 0)) as server, datapath.maps() as maps:
        backend = Backend(ip_bytes("127.0.0.1"), server.getsockname()[1])
        maps.write_backends(0, [backend])
        maps.write_frontends(
            {
                FrontendKey(ip_bytes(_VIP), _PORT, Protocol.TCP): FrontendValue(0, 1, 1),
                FrontendKey(ip_bytes(_EMPTY), _PORT, Protocol.TCP): FrontendValue(
                    0, 0, 2, FrontendFlags.REFUSE
                ),
            }
        )
        datapath.attach()
        with socket.create_connection((_VIP, _PORT), 30) as client:
            accepted, _ = server.accept()
            say("connection", what="translated", ok=client.getpeername() == (_VIP, _PORT))
            accepted.close()
        try:
            socket.create_connection((_EMPTY, _PORT), 30).close()
            say("connection", what="refused", ok=False)
        except OSError as error:
            say("connection", what="refused", ok=error.errno == errno.ECONNREFUSED)


def told(datapath: Datapath) -> None:
    """A connected UDP socket is found with its own address, and learns that its backend is gone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, datapath.maps() as maps:
        server.bind(("127.0.0.1", 0))
        maps.write_backends(1, [Backend(ip_bytes("127.0.0.1"), server.getsockname()[1])])
        maps.write_frontends({FrontendKey(ip_bytes(_VIP), _PORT, Protocol.UDP): FrontendValue(1, 1, 3)})
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((_VIP, _PORT))
            client.settimeout(30)
            found = datapath.connected()
            ports = [each.client.port for each in found]
            say("connection", what="of a UDP socket found", ok=ports == [client.getsockname()[1]])
            refuse(found)
            try:
                client.recv(1)
                say("connection", what="of a UDP socket told", ok=False)
            except OSError as error:
                say("connection", what="of a UDP socket told", ok=error.errno == errno.ECONNREFUSED)


def packets(datapath: Datapath, pins: Path, by_links: bool) -> None:
    """The packet path at work: programs on a device by this kernel's means, and a packet that they translate."""
    with RouteSocket() as kernel:
        peer = attribute(_VETH_INFO_PEER, _LINK + attribute(_IFLA_IFNAME, b"far\0"))
        kind = attribute(_INFO_KIND, b"veth\0") + attribute(_INFO_DATA, peer)
        pair = attribute(_IFLA_IFNAME, b"near\0") + attribute(_IFLA_LINKINFO, kind)
        kernel.request(_NEWLINK, CREATE | EXCLUSIVE, _LINK + pair, "make a pair of devices")
    for name in (b"near", b"far"):
        up(name)
    near = Device(socket.if_nametoindex("near"), "near", "veth")
    (programs,) = pins.glob("programs-*")
    how = attaching.means(pins / "devices", by_links)
    problems = attaching.align(how, programs, [Place(near, Role.OUTSIDE, "for this test")])
    there = len(attaching.running(pins / "devices"))
    say("connection", what="of a device with its programs", ok=not problems and there == 2)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("far", 0))
        wire.send(opening("192.0.2.7", _VIP, _PORT))
        deadline = time.monotonic() + 30
        while not datapath.counters()["packet_forwarded"] and time.monotonic() < deadline:
            time.sleep(0.1)
    counted = datapath.counters()
    translated = counted["packet_forwarded"] == counted["flow_opened"] == 1
    say("connection", what="translated packet by packet", ok=translated)


def opening(source: str, destination: str, port: int) -> bytes:
    """An Ethernet frame with a TCP SYN; nobody on its way looks at TCP's checksum."""
    tcp = struct.pack("!HHIIBBHHH", 40_000, port, 1, 0, 5 << 4, 2, 65_535, 0, 0)
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, socket.IPPROTO_TCP, 0) + addresses
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
    return b"\xff" * 6 + b"\x02" + b"\0" * 5 + b"\x08\0" + head[:10] + checksum + head[12:] + tcp


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
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
    mount("bpf", "/sys/fs/bpf", "bpf")
    os.environ["PATH"] = "/opt/handover/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    os.environ["BCC_KERNEL_SOURCE"] = "/usr/share/handover/kernel-headers"
    up(b"lo")
    insert_modules()
    say("kernel", release=platform.release())

    pins = Path("/sys/fs/bpf/handover")
    datapath = Datapath(pins, Path("/sys/fs/cgroup"))
    features = datapath.probe_features()
    say("features", found=features.found, missing=features.missing, lacking=features.lacking)
    began = time.monotonic()
    datapath.load()
    say("loaded", seconds=round(time.monotonic() - began, 1))
    count_instructions(pins)
    connections(datapath)
    if "socket_storage" in features.found:
        told(datapath)
    packets(datapath, pins, by_links="tcx" in features.found)
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
