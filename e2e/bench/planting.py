"""The crowd, written where the API server keeps its objects: through the API it would take hours.

For each Service that it creates, the API server counts all addresses that it has given out: 19 Services per second were
left when there were 19,000. So one Service is made through the API, and the others are what the API server has made of that
one, under another name, with an address and a UID of their own. It reads JSON there as well as what it writes itself, and
watches: nobody can tell them apart.
"""

import base64
import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from e2e.bench import crowd
from e2e.bench.bulk import Write
from e2e.kube import Object

WRITES = 3
"""For each Service."""


@dataclass(frozen=True, slots=True)
class Seed:
    """What the API server made of one Service: the Service, its EndpointSlice, and the address that it gave out."""

    service: Object
    slice: Object
    address: Object


def writes(seed: Seed, indices: Iterable[int]) -> Iterator[Write]:
    """Those of each Service of the crowd. Its address is there before it, else the API server repairs that."""
    for index in indices:
        name, address = crowd.name(index), crowd.cluster_ip(index)
        parent = {**seed.address["spec"]["parentRef"], "name": name}
        yield _put(f"ipaddresses/{address}", _like(seed.address, address, {"spec": {"parentRef": parent}}))
        labels = {"metadata": {"labels": crowd.of_service(name)}}
        yield _put(f"endpointslices/{crowd.NAMESPACE}/{name}", _like(seed.slice, name, labels))
        own = {"spec": {"clusterIP": address, "clusterIPs": [address]}}
        yield _put(f"services/specs/{crowd.NAMESPACE}/{name}", _like(seed.service, name, own))


def _like(seed: Object, name: str, own: Object) -> Object:
    """The seed with what is the object's own in `own`, a level below the top."""
    metadata = {key: value for key, value in seed["metadata"].items() if key != "resourceVersion"}
    merged = {**seed, "metadata": {**metadata, "name": name, "uid": str(uuid.uuid4())}}
    return {**merged, **{key: {**merged[key], **value} for key, value in own.items()}}


def _put(key: str, item: Object) -> Write:
    pair = {"key": _base64(f"/registry/{key}"), "value": _base64(json.dumps(item))}
    return Write("POST", "/v3/kv/put", pair)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
