"""What every command needs to look at this node: the pinned maps, the names on disk, whether the agent lives.

The kernel serves without the agent, so the commands read it without the agent too. They only say then what
nobody follows any more.
"""

import errno
import http.client
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from handover_agent import bpfbatch, bpfmap
from handover_agent.bpffs import LayoutMismatch, Pins
from handover_agent.bpfmap import MapInfo
from handover_agent.bpfsys import obj_get
from handover_agent.maps import PinnedMaps
from handover_agent.names import NamesFile
from handover_agent.settings import Settings
from handover_agent.showing.command import CannotShow

_PATIENCE_S = 2.0


class NothingPinned(CannotShow):
    """There is no datapath on this node."""


@dataclass(frozen=True, slots=True)
class OpenMap:
    """A pinned map, open for as long as the `with` lasts."""

    fd: int
    info: MapInfo

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of a hash."""
        return bpfbatch.read_hash(self.fd, self.info.key_bytes, self.info.value_bytes)


@dataclass(frozen=True, slots=True)
class Node:
    """This node, as one run of a command sees it."""

    settings: Settings
    names: dict[int, str] = field(default_factory=dict)
    """Service ports by the number that the maps know them by, as the agent last wrote them."""
    notes: tuple[str, ...] = ()
    """What this run cannot know."""

    @classmethod
    def look(cls, settings: Settings) -> "Node":
        """Read the names, and find out whether the agent answers."""
        names = NamesFile(settings.state.names).read()
        silence = agent_silent(settings.health_port)
        notes = (silent_note(silence),) if silence else ()
        return cls(settings, names, notes)

    def service(self, number: int) -> str:
        """A Service port's name, or its number when there is no name."""
        return self.names.get(number, f"#{number}")

    def notes_on(self, services: Iterable[str]) -> tuple[str, ...]:
        """The notes, and one more when Service ports have to be shown by their number."""
        nameless = len({service for service in services if service.startswith("#")})
        if not nameless:
            return self.notes
        which = "a Service port has" if nameless == 1 else f"{nameless} Service ports have"
        return (
            *self.notes,
            f"{which} no name in {self.settings.state.names} and is shown by number: "
            "the agent writes names a moment after the maps; if it stays so, see its log",
        )

    @contextmanager
    def map(self, name: str) -> Iterator[OpenMap]:
        """A pinned map. Raises CannotShow."""
        with self._reading(), obj_get(self._maps() / name) as opened:
            yield OpenMap(opened.fd, bpfmap.map_info(opened.fd))

    @contextmanager
    def frontends(self) -> Iterator[PinnedMaps]:
        """Frontends and backends. Raises CannotShow."""
        with self._reading(), PinnedMaps(self._maps()) as maps:
            yield maps

    def _maps(self) -> Path:
        pins = Pins(self.settings.pins)
        pins.check_layout()
        return pins.maps

    @contextmanager
    def _reading(self) -> Iterator[None]:
        pins = self.settings.pins
        try:
            yield
        except FileNotFoundError as error:
            raise NothingPinned(
                f"no datapath is pinned in {pins}. On Standby that is so, and kube-proxy serves the node; "
                "`handover-agent check` says which rung it is on. If the pins are elsewhere, give --pins"
            ) from error
        except LayoutMismatch as error:
            raise CannotShow(
                f"the maps in {pins} have layout {error.found}, this command reads layout {error.wanted}: "
                "use the handover-agent of the release that pinned them"
            ) from error
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES):
                raise CannotShow(
                    f"{pins} may not be read: run this as root with CAP_BPF, for instance in the agent's pod "
                    "(kubectl -n handover-system exec POD -- handover-agent ...)"
                ) from error
            raise CannotShow(f"the maps pinned in {pins} cannot be read: {error}") from error


def agent_silent(port: int) -> str:
    """Why the agent's own port does not answer; empty when it does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/livez")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException) as error:
        return f"port {port} of this node: {error}"
    finally:
        connection.close()
    return ""


def silent_note(silence: str) -> str:
    """What it means that the agent does not answer."""
    return (
        f"the agent does not answer ({silence}). This is what the kernel has and goes on serving; what "
        "changed in the cluster since the agent ended is not in it"
    )
