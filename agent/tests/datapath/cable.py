"""Cables between network namespaces whose ends have no link headers, like those of WireGuard."""

import fcntl
import os
import select
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Self

_TUNSETIFF = 0x400454CA
_TUN, _NO_PI, _VNET_HDR = 0x1, 0x1000, 0x4000
_HEADER = struct.Struct("=BBHHHH")  # struct virtio_net_hdr: flags, segments, length of headers, ...
_LARGEST = 1 << 17
_WAITING = 500  # packets that a device holds until they are read
_DEADLINE_S = 20


@dataclass
class End:
    """A device of the calling thread's network namespace; it goes when this is closed."""

    fd: int

    @classmethod
    def open(cls, device: str) -> Self:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _TUN | _NO_PI | _VNET_HDR))
        return cls(fd)

    def close(self) -> None:
        os.close(self.fd)

    def receive(self, timeout_s: float = 5) -> bytes:
        """The next IP packet that is sent on the device."""
        assert select.select([self.fd], [], [], timeout_s)[0], f"no packet in {timeout_s:g} s"
        return os.read(self.fd, _LARGEST)[_HEADER.size :]

    def send(self, packet: bytes) -> None:
        """Have an IP packet arrive on the device, in one piece of memory: its beginning is said to be all of it."""
        with suppress(OSError):  # a device that is down loses what arrives
            os.write(self.fd, _HEADER.pack(0, 0, len(packet), 0, 0, 0) + packet)


@contextmanager
def joined(*pairs: tuple[End, End]) -> Iterator[Callable[[], None]]:
    """What is sent at one end of a pair arrives at the other one meanwhile; closes them.

    What it yields returns, when called, as soon as all that was sent before has arrived.
    """
    others = {}
    for one, other in pairs:
        others[one.fd], others[other.fd] = other, one
    told, tell = os.pipe()
    arrived = threading.Semaphore(0)
    carrying = threading.Thread(target=_carry, args=(others, told, arrived))
    carrying.start()

    def carried() -> None:
        os.write(tell, b"?")
        assert arrived.acquire(timeout=_DEADLINE_S), "packets are not carried any more"

    with ExitStack() as stack:
        for fd in (told, tell, *others):
            stack.callback(os.close, fd)
        stack.callback(carrying.join)
        stack.callback(os.write, tell, b"!")
        yield carried


def _carry(others: dict[int, End], told: int, arrived: threading.Semaphore) -> None:
    poll = select.poll()
    for fd in (*others, told):
        poll.register(fd, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd != told:
                _carry_one(fd, others[fd])
            elif os.read(told, 1) == b"!":
                return
            else:
                for each, other in others.items():
                    for _ in range(_WAITING):
                        if not _carry_one(each, other):
                            break
                arrived.release()


def _carry_one(fd: int, other: End) -> bool:
    """False: there was none."""
    try:
        packet = os.read(fd, _LARGEST)
    except BlockingIOError:
        return False
    other.send(packet[_HEADER.size :])
    return True
