"""A storm: something that is done to the cluster again and again, and traffic to the Services that it is about."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from e2e.traffic.client.ledger import ANSWER_WITHIN_S
from e2e.trial import Trial, until

_MET_WITHIN_S = 60.0
PATIENCE_S = 20.0
"""All storms at once leave a pod or a client without a processor for seconds: what is late then is counted as slow."""


class StormError(Exception):
    """A storm could not go on: says which one, and why."""


class Storm(ABC):
    """What is done to the cluster; `blow` is called again and again, in a thread of its own."""

    service = ""  # that it makes, and takes away at its end

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.blown = 0  # how often it has been done completely
        self.ending = threading.Event()

    def begin(self) -> list[dict[str, Any]]:
        """Have what is needed; returns the Services under traffic, as the clients' targets."""
        return []

    @abstractmethod
    def blow(self) -> None:
        """Do it once."""

    @abstractmethod
    def end(self) -> None:
        """Put everything back; called after the last `blow`, also when `begin` or `blow` failed. Idempotent."""

    def said(self) -> str:
        """What it did, for people."""
        return f"{self.blown} times"

    def __str__(self) -> str:
        return type(self).__name__


@contextmanager
def raging(trial: Trial, storms: Sequence[Storm]) -> Iterator[None]:
    """Have storms rage, and traffic on what they are about. Raises StormError when one could not go on."""
    errors: list[StormError] = []
    with ExitStack() as stack:
        targets: list[dict[str, Any]] = []
        stack.callback(trial.traffic.patience, ANSWER_WITHIN_S)
        trial.traffic.patience(PATIENCE_S)
        for storm in storms:
            stack.callback(storm.end)
            targets += storm.begin()
        if targets:
            stack.callback(trial.traffic.targets, [])
            trial.traffic.targets(targets)
            until(
                "every client is served by what the storms are about",
                trial.traffic.met,
                _MET_WITHIN_S,
                lambda: [
                    (c.name, [t for t in c.targets if not t["met"]]) for c in trial.traffic.report().clients
                ],
            )
        threads = [threading.Thread(target=_rage, args=[storm, errors], name=str(storm)) for storm in storms]
        stack.callback(_calm, storms, threads)
        for thread in threads:
            thread.start()
        yield
    if errors:
        raise errors[0]


def _rage(storm: Storm, errors: list[StormError]) -> None:
    try:
        while not storm.ending.is_set():
            storm.blow()
            storm.blown += 1
    except (
        Exception
    ) as error:  # whatever it is, the test has to hear of it, and this thread's caller is nobody
        errors.append(
            StormError(f"{storm}, after it was done {storm.blown} times: {type(error).__name__}: {error}")
        )
        errors[-1].__cause__ = error


def _calm(storms: Sequence[Storm], threads: Sequence[threading.Thread]) -> None:
    for storm in storms:
        storm.ending.set()
    for thread in threads:
        if thread.ident is not None:
            thread.join()
