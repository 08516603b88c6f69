"""The clusters of one run of the tests, in batches: one for each kind of node, one kube-proxy run for each; and how
what comes of them is compared.
"""

import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from random import SystemRandom

from tests.differential import generating
from tests.differential.asking import Question
from tests.differential.crossroads import Crossroads
from tests.differential.generating import Cluster
from tests.differential.packets import Ending, Endings, Origin, Packet
from tests.differential.setting import SETTINGS, Setting

SEED = int(os.environ.get("HANDOVER_DIFFERENTIAL_SEED") or SystemRandom().randrange(1, 10**9))
SIZE = 260
_STICKY_TIMES = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """Clusters on one node."""

    setting: Setting = field(repr=False)
    first_seed: int
    size: int = SIZE

    def __str__(self) -> str:
        return f"zone-{self.setting.zone or 'none'}"

    def clusters(self) -> list[Cluster]:
        return [generating.cluster(self.first_seed + number, number) for number in range(self.size)]


BATCHES: Sequence[Batch] = [Batch(setting, SEED + index * SIZE) for index, setting in enumerate(SETTINGS)]


def ask(
    roads: Crossroads, questions: Sequence[Question], expected: Sequence[Endings]
) -> list[Counter[Ending]]:
    """What comes of the packets; clients that stay with a backend ask some times more, and no more."""
    packets = [question.packet for question in questions]
    sticky = [index for index, question in enumerate(questions) if question.sticky]
    once: Endings = frozenset()
    found = roads.endings(
        packets, [once if each.sticky else wanted for each, wanted in zip(questions, expected, strict=True)]
    )
    for _ in range(_STICKY_TIMES - 1):
        again = roads.endings([packets[index] for index in sticky], [once] * len(sticky))
        for index, more in zip(sticky, again, strict=True):
            found[index] += more
    return found


def agree(question: Question, expected: Endings, found: Collection[Ending]) -> bool:
    """Whether packets went where they should: everywhere in time, but a client that stays with one to one."""
    return expected.issuperset(found) and len(found) == (1 if question.sticky else len(expected))


def seen_from(packet: Packet, endings: Endings) -> Endings:
    """Endings as one can tell them apart: what the node sends has the node's address, masqueraded or not."""
    if packet.origin is Origin.NODE:
        return frozenset(Ending(ending.kind, ending.backend) for ending in endings)
    return endings
