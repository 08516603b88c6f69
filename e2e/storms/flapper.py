"""Changes EndpointSlices at a rate, until standard input is closed: a process of the lab's, as on a busy machine a thread of
the tests' hardly ever gets its turn.

The first line of standard input is what to do, as JSON; a line of standard output is how many changes have been made.
"""

import json
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from e2e.kube import Kube, Object
from e2e.netns import Inside
from e2e.traffic.deploy import NAMESPACE

_CHANGES_PER_S = 50
_TOLD_EVERY = 50
_BEHIND_S = 1.0  # what was missed by more than that is not made up for


def changes(slices: Sequence[Object], chance: random.Random) -> Iterator[tuple[str, list[Object]]]:
    """Slices' names with their next endpoints, without end: some of them in some order, and one at least is ready.

    Those that are not are gone, or are said to be ending while they serve.
    """
    while True:
        for item in slices:
            every = list(item["endpoints"])
            ready = chance.sample(every, chance.randint(1, len(every)))
            others = [e for e in every if e not in ready and chance.random() < 0.5]
            ending = {"ready": False, "serving": True, "terminating": True}
            endpoints = [*ready, *({**e, "conditions": ending} for e in others)]
            yield item["metadata"]["name"], chance.sample(endpoints, len(endpoints))


def main() -> int:
    """Exit status 0 when told to end."""
    told: dict[str, Any] = json.loads(sys.stdin.readline())
    ending = threading.Event()
    threading.Thread(target=_until_left_alone, args=[ending], daemon=True).start()
    with Inside(told["netns"], threads=1) as fabric:
        kube = Kube(fabric, told["address"], Path(told["pki"]))
        with kube.line() as line:
            due = time.monotonic()
            following = changes(told["slices"], random.Random(told["seed"]))
            for made, (name, endpoints) in enumerate(following, 1):
                line.patch("EndpointSlice", name, {"endpoints": endpoints}, NAMESPACE)
                if made % _TOLD_EVERY == 0:
                    print(made, flush=True)
                now = time.monotonic()
                due = max(due + 1 / _CHANGES_PER_S, now - _BEHIND_S)
                if ending.wait(max(0.0, due - now)):
                    return 0
    return 1


def _until_left_alone(ending: threading.Event) -> None:
    sys.stdin.read()
    ending.set()


if __name__ == "__main__":
    sys.exit(main())
