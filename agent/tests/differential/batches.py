"""The clusters of one run of the tests, in batches: one for each kind of node, one kube-proxy run for each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import SystemRandom

from tests.differential import generating
from tests.differential.generating import Cluster
from tests.differential.packets import Ending, Endings, Origin, Packet
from tests.differential.setting import SETTINGS, Setting

SEED = int(os.environ.get("HANDOVER_DIFFERENTIAL_SEED") or SystemRandom().randrange(1, 10**9))
SIZE = 260


@dataclass(frozen=True, slots=True)
class Batch:
    """Clusters on one node."""

    setting: Setting = field(repr=False)
    first_seed: int
    size: int = SIZE

    def __str__(self) -> str:
        of = self.setting
        addresses = "+".join(of.node_port_addresses)
        return f"zone={of.zone or 'none'},{of.detect_local},nodePortAddresses={addresses}"

    def clusters(self) -> list[Cluster]:
        return [generating.cluster(self.first_seed + number, number) for number in range(self.size)]


BATCHES: Sequence[Batch] = [Batch(setting, SEED + index * SIZE) for index, setting in enumerate(SETTINGS)]


def seen_from(packet: Packet, endings: Endings) -> Endings:
    """Endings as one can tell them apart: what the node sends has the node's address, masqueraded or not."""
    if packet.origin is Origin.NODE:
        return frozenset(Ending(ending.kind, ending.backend) for ending in endings)
    return endings
