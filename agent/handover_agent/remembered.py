"""What the programs remember: of sockets that are translated, of flows, of pods. Read, counted, and forgotten where it is
wrong by now.

All of it is in maps that programs write while it is read, so a number is one of the moment. Where nothing is loaded there
is nothing: no error.
"""

from pathlib import Path

from handover_agent import bpfbatch, bpfmap, bpfsys, layout, pinnedsettings, pressure
from handover_agent.bpffs import Pins
from handover_agent.conntrack import Serving
from handover_agent.entries import Note
from handover_agent.maps import PinnedMaps
from handover_agent.packetpath import left
from handover_agent.packetpath.stale import stale_flows
from handover_agent.sockets import noted
from handover_agent.table import FrontendKey, Protocol

_ENDED_UNSEEN = ("reverse", "forward", "sockets", "flows", "fragments", "clients", "stranded")
"""Maps about connections and pods, of which nobody sees any more whether they go on once programs are detached."""
_CROWDED = 0.75


class Remembered:
    """Of the datapath in `pins`."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins

    def translated(self, protocol: Protocol | None = None) -> int:
        """How many reverse entries there are (of a protocol): open sockets' translated destinations.

        TCP connections go on without us once they are set up (their peer's name apart); UDP sockets that are
        not connected need us as long as they are used. An MPTCP connection's entry stays when it is closed, as
        the kernel tells of the user's sockets only, until it is the least recently used: do not wait for TCP.
        """
        entries = bpfbatch.read_pinned(self._map("reverse"))
        return sum(protocol in (None, layout.reverse_protocol(value)) for _, value in entries)

    def pressure(self) -> dict[str, float]:
        """How full the maps are that programs write (see `pressure`); {}: not loaded. Raises BpfError."""
        return pressure.ratios(self._pins.maps)

    def watch_stranded(self, serving: Serving) -> bool:
        """Have the packet path note connected UDP sockets that send to a backend which serves no more, as long as there
        may be any; whether it does. Raises BpfError.
        """
        wanted = noted.may_be(self._pins.maps, serving)
        if pinnedsettings.is_noting(self._pins.maps) is None:
            return False
        with self._pins.locked(make=False):
            noting = pinnedsettings.is_noting(self._pins.maps)
            if noting is None:
                return False  # unloaded just now
            if wanted and not noting:
                noted.take(self._pins.maps)  # nobody has waited for what was noted some other time
            if wanted is not noting:
                pinnedsettings.write_noting(self._pins.maps, wanted)
        return wanted

    def noted_stranded(self) -> list[Note]:
        """Whom the packet path has noted since the last call. Raises BpfError."""
        return noted.take(self._pins.maps)

    def forget_udp_flows(self, serving: Serving) -> int:
        """Remove the packet path's UDP flows to backends that serve no more; how many. Raises BpfError."""
        gone = stale_flows(bpfbatch.read_pinned(self._map("flows")), serving)
        bpfbatch.delete_pinned(self._map("flows"), gone)
        return len(gone)

    def keep_left(self, serving: Serving | None = None) -> int:
        """Leave to conntrack the UDP flows that it translates, as long as it does (`packetpath.left`); how many.

        With `serving`: of those whose backend serves. Raises BpfError, ConntrackError.
        """
        try:
            opened = PinnedMaps(self._pins.maps)
        except FileNotFoundError:
            return 0
        with opened as maps:
            services = {
                FrontendKey(key.address, key.port, key.protocol): value.service_id
                for key, value in maps.read_frontends().items()
                if key.protocol is Protocol.UDP
            }
        return left.keep(self._map("flows"), services, serving)

    def forget_left(self) -> None:
        """Leave none to it any more: before nothing keeps it translating. Raises BpfError."""
        left.forget(self._map("flows"))

    def forget_addresses(self) -> None:
        """Forget whose addresses pods have when there are many of them: some are gone, and the others are noted anew
        with their next connection. Raises BpfError.
        """
        known = [key for key, _ in bpfbatch.read_pinned(self._map("clients"))]
        if len(known) >= _CROWDED * self._room("clients"):
            bpfbatch.delete_pinned(self._map("clients"), known)

    def forget(self) -> None:
        """Forget all connections and pods, in the maps of every layout. Raises BpfError."""
        for maps in self._pins.layouts.values():
            for name in _ENDED_UNSEEN:
                bpfbatch.delete_pinned(maps / name, [key for key, _ in bpfbatch.read_pinned(maps / name)])

    def _room(self, name: str) -> int:
        """How many entries a map holds; 0 where it is not."""
        try:
            descriptor = bpfsys.obj_get(self._map(name))
        except FileNotFoundError:
            return 0
        with descriptor as opened:
            return bpfmap.map_info(opened.fd).max_entries

    def _map(self, name: str) -> Path:
        return self._pins.maps / name
