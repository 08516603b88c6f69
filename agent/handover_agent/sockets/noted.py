"""The pinned maps that tell about stranded sockets: whether there may be any, and whom the packet path has met.

The other side of bpf/stranded.h. A note is made once; taking it away makes room for the next one, which comes with the
socket's next datagram.
"""

from pathlib import Path

from handover_agent import bpfbatch, bpfmap, layout
from handover_agent.bpfsys import obj_get
from handover_agent.conntrack import Serving
from handover_agent.entries import Note, unpack_note, unpack_reverse
from handover_agent.sockets.gone import may_be_stranded
from handover_agent.table import Backend

NOTES = "stranded"


def may_be(maps: Path, serving: Serving) -> bool:
    """Whether any socket may be stranded. Raises BpfError."""
    try:
        forward = obj_get(maps / "forward")
    except FileNotFoundError:
        return False

    def used_now(cookie: int, frontend: Backend) -> Backend | None:
        raw = bpfmap.lookup(forward.fd, layout.pack_forward_key(cookie, frontend), layout.FORWARD_BYTES)
        return None if raw is None else layout.unpack_forward(raw)

    with forward:
        return may_be_stranded(
            (unpack_reverse(*entry) for entry in bpfbatch.read_pinned(maps / "reverse")), serving, used_now
        )


def take(maps: Path) -> list[Note]:
    """The notes made since the last call. Raises BpfError."""
    entries = list(bpfbatch.read_pinned(maps / NOTES))
    bpfbatch.delete_pinned(maps / NOTES, [key for key, _ in entries])
    return [unpack_note(*entry) for entry in entries]
