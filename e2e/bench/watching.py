"""When a change reaches those who watch: one object, written and watched by the benchmark itself.

What a proxy takes begins with the watch's event, not with the write: what the API server takes is not the proxy's.
"""

import http.client
import json
import threading
import time
from dataclasses import dataclass, field

from e2e.bench.asking import BenchError
from e2e.bench.bulk import Kept
from e2e.kube import Object, path_of

_EVENT_WITHIN_S = 10.0


@dataclass(slots=True)
class Watching:
    """Writes one object and notes when the events come. For one thread; close it at the end."""

    item: Object
    writer: Kept
    watch: http.client.HTTPResponse
    _seen: dict[str, float] = field(default_factory=dict)
    _news: threading.Condition = field(default_factory=threading.Condition)

    @classmethod
    def of(cls, item: Object, writer: Kept, watcher: Kept) -> "Watching":
        """Begin to watch; over connections that the caller made and closes. Raises KubeError."""
        collection, _, name = path_of(item).rpartition("/")
        version = writer.call("PUT", path_of(item), item)["metadata"]["resourceVersion"]
        address = f"{collection}?watch=1&fieldSelector=metadata.name%3D{name}&resourceVersion={version}"
        watching = cls(item, writer, watcher.open("GET", address))
        threading.Thread(target=watching._read, name="watch", daemon=True).start()
        return watching

    def put(self, item: Object) -> str:
        """Write the object; returns its version. Raises KubeError."""
        return str(self.writer.call("PUT", path_of(item), item)["metadata"]["resourceVersion"])

    def seen(self, version: str) -> float:
        """When the event of a version came, by the machine's clock. Raises BenchError."""
        with self._news:
            if not self._news.wait_for(lambda: version in self._seen, _EVENT_WITHIN_S):
                raise BenchError(f"no watch event of {path_of(self.item)} in version {version}")
            return self._seen[version]

    def _read(self) -> None:
        try:
            for line in self.watch:
                at = time.monotonic()
                version = json.loads(line)["object"]["metadata"].get("resourceVersion", "")
                with self._news:
                    self._seen[version] = at
                    self._news.notify_all()
        except (OSError, ValueError, AttributeError):
            return  # it was closed; whoever waits for an event gives up by itself
