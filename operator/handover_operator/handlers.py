"""What kopf is asked to do: carry the process, call when a ProxyMigration changes, answer the liveness probe.

Nothing here decides anything, and nothing here makes kopf write on an object: no finalizer, no annotation, no
Event.
"""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import kopf
from handover_api.base import GROUP, VERSION

from handover_operator.places import PROXY_MIGRATION
from handover_operator.runtime import Runtime

# kopf removes a finalizer of this name wherever it sees one, so it must never be the name of ours.
_UNUSED_FINALIZER = "unused.handover.dev/kopf"


class _NoStorage(kopf.ProgressStorage):
    """kopf has nothing to remember: `on.event` handlers have no progress."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


class _NoDiffs(kopf.DiffBaseStorage):
    """kopf has nothing to compare; an empty essence also saves a deep copy of each object."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return {}

    def store(self, **_: Any) -> None:
        return None


class _Patience:
    """Pauses between tries to reach the API server, without an end: being away is no reason to die."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1, 2), itertools.repeat(5.0))


def configure(settings: kopf.OperatorSettings) -> None:
    """kopf's settings for an operator that keeps its own books."""
    settings.persistence.progress_storage = _NoStorage()
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.persistence.finalizer = _UNUSED_FINALIZER
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.error_backoffs = _Patience()
    settings.watching.server_timeout = 240


def registry(runtime: Runtime) -> kopf.OperatorRegistry:
    """The handlers, bound to the running operator."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await asyncio.to_thread(runtime.access.for_kopf)

    @kopf.on.startup(registry=handlers)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)
        await runtime.start()

    @kopf.on.cleanup(registry=handlers)
    async def stop(**_: Any) -> None:
        await runtime.stop()

    @kopf.on.event(GROUP, VERSION, PROXY_MIGRATION.plural, registry=handlers)
    async def changed(**_: Any) -> None:
        runtime.wake()

    @kopf.on.probe(id="passes", registry=handlers)
    async def alive(**_: Any) -> int:
        if runtime.loop is None or runtime.loop.stuck:
            raise kopf.PermanentError("no pass over the cluster has ended for too long")
        return runtime.loop.passes

    return handlers
