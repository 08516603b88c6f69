"""Which connected UDP sockets are stranded: those whose backend serves no more while another one does. Pure.

As with conntrack's entries, whether a backend serves is all that counts: policies, hints and readiness decide about new
connections only, and a Service without any endpoint has nowhere better to send its clients.
"""

from collections.abc import Callable, Iterable

from handover_agent.conntrack.serving import Serving, is_gone
from handover_agent.entries import Note, Reverse
from handover_agent.table import Backend, Protocol


def stranded(notes: Iterable[Note], serving: Serving) -> list[Note]:
    """Those of the notes whose backend is not one of its frontend's any more.

    The packet path knows new connections' backends only, so that it notes more.
    """
    return [note for note in notes if is_gone(note.frontend, note.destination, serving)]


def may_be_stranded(
    entries: Iterable[Reverse], serving: Serving, used_now: Callable[[int, Backend], Backend | None]
) -> bool:
    """Whether one of these translated destinations may be that of a stranded socket.

    `used_now` tells by a socket's cookie and a frontend which backend its next datagram goes to, if that is known: a
    socket that names its destination each time has another one by then, and its earlier ones mean nothing.
    """
    return any(
        entry.protocol == Protocol.UDP
        and is_gone(entry.frontend, entry.backend, serving)
        and used_now(entry.cookie, entry.frontend) in (None, entry.backend)
        for entry in entries
    )
