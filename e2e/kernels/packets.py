"""The packet path at work in the machine: on devices, with the node's nft table, by programs that the agent attached.

Runs in the machine. No socket here is in the datapath's cgroup, so whatever is translated was so packet by packet.
"""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from handover_agent.maps import PinnedMaps
from handover_agent.table import Backend, FrontendFlags, FrontendKey, FrontendValue, Protocol, ip_bytes

from e2e.kernels.wiring import CLIENT, FAMILIES, GATEWAY, NODE, POD, Namespaces

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
_IN_POD, _OUTSIDE, _ON_NODE, _EMPTY = "20", "21", "22", "23"  # what frontends' addresses end with
_PORT, _BACKEND_PORT = 80, 8080
_FIRST_SLOT = 16
_LARGE_BYTES = 4000
"""Of a datagram that does not fit into a packet."""
_OWN_PORTS = 61_000
"""From here on are those of the node's own flows: nobody else's look alike."""

Attempt = Callable[[], bool]
"""Returns whether all was as expected; one that gets nowhere raises OSError."""


def expose(maps: PinnedMaps) -> None:
    """The frontends that are tried."""
    frontends = {}
    slot = _FIRST_SLOT
    for family in FAMILIES:
        for name, host in ((_IN_POD, POD), (_OUTSIDE, CLIENT), (_ON_NODE, NODE)):
            maps.write_backends(slot, [Backend(ip_bytes(host[family]), _BACKEND_PORT)])
            for protocol in (Protocol.TCP, Protocol.UDP):
                frontends[_key(family, name, protocol)] = FrontendValue(slot, 1, slot)
            slot += 1
        frontends[_key(family, _EMPTY, Protocol.TCP)] = FrontendValue(0, 0, slot, FrontendFlags.REFUSE)
    maps.write_frontends(frontends)


def attempts(names: Namespaces, node: bool) -> Iterator[tuple[str, Attempt]]:
    """What is tried, in words, and how. `node`: the kernel lets the node's own packets be translated."""
    for family in FAMILIES:
        trial = _Trial(names, family)
        tried: dict[str, Attempt] = {
            "from outside to a pod": trial.from_outside,
            "from outside, a datagram in pieces": trial.in_pieces,
            "from outside, refused": trial.refused,
            "from outside to the node": trial.to_the_node,
            "from a pod to outside": trial.from_pod,
        }
        if node:
            tried["of the node's own to a pod"] = trial.of_the_node
            tried["of the node's own to outside"] = trial.of_the_node_to_outside
            tried["of the node's own to itself"] = trial.of_the_node_to_itself
        for what, attempt in tried.items():
            yield f"{what}, IPv{family}", attempt


class _Trial:
    def __init__(self, names: Namespaces, family: int) -> None:
        self._names, self._family = names, family

    def from_outside(self) -> bool:
        """Masqueraded, by the address that the node has towards the pod."""
        names = self._names
        return all(self._asked(kind, names.client, _IN_POD, names.pod, GATEWAY) for kind in (TCP, UDP))

    def to_the_node(self) -> bool:
        """Nothing is masqueraded that does not leave the node."""
        names = self._names
        return all(self._asked(kind, names.client, _ON_NODE, names.node, CLIENT) for kind in (TCP, UDP))

    def in_pieces(self) -> bool:
        names = self._names
        return bool(self._asked(UDP, names.client, _IN_POD, names.pod, GATEWAY, _LARGE_BYTES))

    def from_pod(self) -> bool:
        """With the pod's own address as its source."""
        names = self._names
        return all(self._asked(kind, names.pod, _OUTSIDE, names.client, POD) for kind in (TCP, UDP))

    def of_the_node(self) -> bool:
        return self._own(_IN_POD, self._names.pod)

    def of_the_node_to_outside(self) -> bool:
        return self._own(_OUTSIDE, self._names.client)

    def of_the_node_to_itself(self) -> bool:
        return self._own(_ON_NODE, self._names.node)

    def _own(self, name: str, server: int) -> bool:
        """Of the node's own, by another port than that of its direct connections."""
        ports = [self._asked(kind, self._names.node, name, server, NODE) for kind in (TCP, UDP)]
        return all(port >= _OWN_PORTS for port in ports)

    def refused(self) -> bool:
        with closing(self._names.open(self._names.client, self._family, TCP)) as client:
            return client.connect_ex((_address(self._family, _EMPTY), _PORT)) == errno.ECONNREFUSED

    def _asked(
        self,
        kind: socket.SocketKind,
        client: int,
        name: str,
        server: int,
        seen: dict[int, str],
        size: int = 5,
    ) -> int:
        """One question, one answer. The client's port as the server sees it, 0 when anything is wrong."""
        frontend, question = (_address(self._family, name), _PORT), b"?" * size
        with self._serving(kind, server) as serving, self._names.open(client, self._family, kind) as asking:
            asking.connect(frontend)
            asking.send(question)
            if kind is TCP:
                accepted, peer = serving.accept()
                with accepted:
                    accepted.settimeout(30)
                    accepted.send(accepted.recv(size))
            else:
                heard, peer = serving.recvfrom(65_536)
                serving.sendto(heard, peer)
            well = asking.recv(65_536) == question and asking.getpeername()[:2] == frontend
            return int(peer[1]) if well and peer[0] == seen[self._family] else 0

    @contextmanager
    def _serving(self, kind: socket.SocketKind, namespace: int) -> Iterator[socket.socket]:
        with self._names.open(namespace, self._family, kind) as serving:
            serving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            serving.bind(("", _BACKEND_PORT))
            if kind is TCP:
                serving.listen()
            yield serving


def _address(family: int, name: str) -> str:
    return f"10.96.0.{name}" if family == 4 else f"fd00:96::{name}"


def _key(family: int, name: str, protocol: Protocol) -> FrontendKey:
    return FrontendKey(ip_bytes(_address(family, name)), _PORT, protocol)
