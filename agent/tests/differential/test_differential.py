"""Random clusters: the real kube-proxy's nft rules, our wanted table and our programs give the same packets the
same endings.

Each packet's possible endings (backends, masqueraded or not; refused, dropped, left alone) are read from the rules
that a real kube-proxy wrote for the clusters. The reading is checked with real packets, all of them.

A failure names the seeds; HANDOVER_DIFFERENTIAL_SEED=… makes the same clusters again.
"""

from collections import Counter

import pytest
from tests.differential import tabled
from tests.differential.batches import seen_from
from tests.differential.conftest import Proxied
from tests.differential.differences import documented
from tests.differential.packets import Kind, told

pytestmark = pytest.mark.node

_SHOWN = 5


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
        if (not read.issuperset(went) if question.sticky else read != went.keys())
    ]
    assert not wrong, f"{len(wrong)} wrong:\n" + "\n".join(wrong[:_SHOWN])


def test_our_table_says_of_every_packet_what_kube_proxys_rules_say(proxied_batch: Proxied) -> None:
    differences: list[str] = []
    for (cluster, question), theirs in zip(proxied_batch.asked, proxied_batch.read, strict=True):
        ours = seen_from(question.packet, tabled.endings(proxied_batch.table, question.packet))
        known = documented(question, proxied_batch.batch.setting)
        expected = theirs if known is None else known.ours
        if expected is not None and ours != expected:
            differences.append(
                f"seed {cluster.seed}: {question.packet}: kube-proxy {told(theirs)}, ours {told(ours)}"
                + (f" instead of {told(expected)} ({known.reason})" if known else "")
            )
    assert not differences, f"{len(differences)} differ:\n" + "\n".join(differences[:_SHOWN])
