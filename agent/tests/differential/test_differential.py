"""Random clusters: the real kube-proxy's nft rules, our wanted table and our programs give the same packets the
same endings.

Each packet's possible endings (backends, masqueraded or not; refused, dropped, left alone) are read from the rules
that a real kube-proxy wrote for the clusters. The reading is checked with real packets, all of them.

A failure names the seeds; HANDOVER_DIFFERENTIAL_SEED=… makes the same clusters again.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from handover_agent.table import Protocol
from tests.differential import proxied, tabled
from tests.differential.asking import Question
from tests.differential.batches import agree, ask, seen_from
from tests.differential.conftest import Proxied
from tests.differential.crossroads import crossroads
from tests.differential.differences import documented
from tests.differential.generating import Cluster
from tests.differential.packets import Endings, Kind, Origin, told
from tests.differential.programmed import process, programs
from tests.node.netns import Namespace

pytestmark = pytest.mark.node

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What should come of a packet, and why."""

    endings: Endings
    why: str

    def __str__(self) -> str:
        return f"{self.why} {told(self.endings)}"


def wanted(of: Proxied) -> Iterator[tuple[Cluster, Question, Wanted]]:
    """What kube-proxy does, or the documented difference; without what is not ours to say."""
    for (cluster, question), read in zip(of.asked, of.read, strict=True):
        known = documented(question, of.batch.setting)
        if known is None:
            yield cluster, question, Wanted(read, "kube-proxy")
        elif known.ours is not None:
            yield cluster, question, Wanted(known.ours, f"{known.reason}:")


def test_the_clusters_have_every_kind_of_ending(proxied_batch: Proxied) -> None:
    kinds = Counter(ending.kind for endings in proxied_batch.read for ending in endings)
    assert all(kinds[kind] > proxied_batch.batch.size for kind in Kind), kinds


def test_the_kernel_treats_every_packet_as_the_reading_of_kube_proxys_rules_says(
    proxied_batch: Proxied,
) -> None:
    wrong = [
        f"seed {cluster.seed}: {question.packet}: read {told(read)}, went {told(went)}"
        for (cluster, question), read, went in zip(
            proxied_batch.asked, proxied_batch.read, proxied_batch.went, strict=True
        )
        if not agree(question, read, went)
    ]
    assert not wrong, f"{len(wrong)} wrong:\n" + "\n".join(wrong[:_SHOWN])


def test_our_table_says_of_every_packet_what_kube_proxys_rules_say(proxied_batch: Proxied) -> None:
    differences = [
        f"seed {cluster.seed}: {question.packet}: {expected}, ours {told(ours)}"
        for cluster, question, expected in wanted(proxied_batch)
        if (ours := seen_from(question.packet, tabled.endings(proxied_batch.table, question.packet)))
        != expected.endings
    ]
    assert not differences, f"{len(differences)} differ:\n" + "\n".join(differences[:_SHOWN])


@pytest.mark.usefixtures("no_compiler")
def test_our_programs_do_with_every_packet_what_kube_proxys_rules_do(
    proxied_batch: Proxied, bpffs: Path, cgroup: Path
) -> None:
    chosen = [each for each in wanted(proxied_batch) if each[1].packet.origin is not Origin.NODE]
    with (
        at_the_node(),
        crossroads() as roads,
        programs(proxied_batch.table, bpffs / "own", cgroup),
    ):
        found = ask(roads, [question for _, question, _ in chosen], [each.endings for _, _, each in chosen])
    differences = [
        f"seed {cluster.seed}: {question.packet}: {expected}, ours {told(ours)}"
        for (cluster, question, expected), ours in zip(chosen, found, strict=True)
        if not agree(question, expected.endings, ours)
    ]
    assert not differences, f"{len(differences)} differ:\n" + "\n".join(differences[:_SHOWN])


@pytest.mark.usefixtures("no_compiler")
def test_our_sockets_reach_what_kube_proxys_rules_let_them_reach(
    proxied_batch: Proxied, bpffs: Path, cgroup: Path
) -> None:
    chosen = [
        (cluster, question, expected)
        for cluster, question, expected in wanted(proxied_batch)
        if question.packet.origin is Origin.NODE and question.packet.protocol is not Protocol.SCTP
    ]
    with (
        at_the_node(),
        process(cgroup) as connecting,
        crossroads(connecting) as roads,
        programs(proxied_batch.table, bpffs / "own", cgroup),
    ):
        found = ask(roads, [question for _, question, _ in chosen], [each.endings for _, _, each in chosen])
    differences = [
        f"seed {cluster.seed}: {question.packet}: {expected}, ours {told(ours)}"
        for (cluster, question, expected), ours in zip(chosen, found, strict=True)
        if not agree(question, expected.endings, ours)
    ]
    assert not differences, f"{len(differences)} differ:\n" + "\n".join(differences[:_SHOWN])


@contextmanager
def at_the_node() -> Iterator[None]:
    node = Namespace()
    with node.entered():
        proxied.devices()
        yield
    node.close()
