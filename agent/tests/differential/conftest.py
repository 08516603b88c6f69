"""What kube-proxy does with a batch of random clusters, found out once and used by every test of the batch."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from handover_agent.table import Table
from tests.datapath import pods
from tests.datapath.conftest import compiled, no_compiler
from tests.differential import asking, proxied, tabled
from tests.differential.asking import Question
from tests.differential.batches import BATCHES, Batch, ask, seen_from
from tests.differential.crossroads import crossroads
from tests.differential.generating import Cluster
from tests.differential.packets import Ending, Endings
from tests.kubeproxy import recording
from tests.node.netns import Namespace, run

__all__ = ["compiled", "no_compiler"]


@dataclass(frozen=True, slots=True)
class Proxied:
    """A batch, asked of kube-proxy."""

    batch: Batch
    clusters: Sequence[Cluster]
    asked: Sequence[tuple[Cluster, Question]]
    read: Sequence[Endings]  # by reading its rules, for each question
    went: Sequence[Mapping[Ending, int]]  # with real packets: how many ended how, for each question
    table: Table  # ours


@pytest.fixture(scope="module", params=BATCHES, ids=str)
def proxied_batch(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces and packet filter rules")
    binary = recording.binary()
    if binary is None:
        pytest.skip("no kube-proxy: KUBE_PROXY does not name one")
    yield _ask(request.param, binary, tmp_path_factory.mktemp("proxied"))


def _ask(batch: Batch, binary: Path, scratch: Path) -> Proxied:
    print(f"seeds {batch.first_seed} … {batch.first_seed + batch.size - 1}")
    clusters = batch.clusters()
    asked = [(cluster, question) for cluster in clusters for question in asking.questions(cluster)]
    node = Namespace()
    with node.entered():
        proxied.devices()
        with crossroads() as roads:
            with proxied.kube_proxy(batch.setting, clusters, binary, scratch):
                rules = proxied.rules()
            read = [seen_from(each.packet, rules.endings(each.packet)) for _, each in asked]
            went = ask(roads, [each for _, each in asked], read)
    node.close()
    return Proxied(batch, clusters, asked, read, went, tabled.table_of(clusters, batch.setting))


@pytest.fixture(scope="session")
def bpffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bpffs of our own."""
    path = tmp_path_factory.mktemp("bpf")
    run("mount", "-t", "bpf", "bpf", str(path))
    yield path
    run("umount", str(path))


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup to which nothing is attached."""
    with pods.cgroup(f"handover-differential-{os.getpid()}") as path:
        yield path
