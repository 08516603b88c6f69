"""Which connected UDP sockets have to be told: those whose backend serves no more while another one does. Pure.

As with conntrack's entries, whether a backend serves is all that counts: policies, hints and readiness decide about new
connections only, and a Service without any endpoint has nowhere better to send its clients.
"""

from collections.abc import Collection, Iterable, Mapping

from handover_agent.sockets.carried import Carried
from handover_agent.table import Backend, FrontendKey


def stranded(sockets: Iterable[Carried], serving: Mapping[FrontendKey, Collection[Backend]]) -> list[Carried]:
    """The sockets that lead to a backend which is not one of its frontend's any more."""
    found = []
    for socket in sockets:
        backends = serving.get(socket.frontend)
        if backends and socket.backend not in backends:
            found.append(socket)
    return found
