"""Owners who would fight are found, each with its evidence; those who would not are left in peace."""

from typing import Any

import pytest
from handover_operator.facts import OwnerKind
from handover_operator.owners import owners_of

pytestmark = pytest.mark.unit


def daemon_set(**metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "kube-proxy", "namespace": "kube-system", **metadata}}


@pytest.mark.parametrize(
    ("metadata", "kind", "name"),
    [
        (
            {"annotations": {"argocd.argoproj.io/tracking-id": "net:apps/DaemonSet:kube-system/kube-proxy"}},
            OwnerKind.ARGO_CD,
            "Argo CD's Application net",
        ),
        ({"labels": {"argocd.argoproj.io/instance": "net"}}, OwnerKind.ARGO_CD, "Argo CD's Application net"),
        (
            {
                "labels": {"app.kubernetes.io/instance": "net"},
                "managedFields": [{"manager": "argocd-controller", "operation": "Apply"}],
            },
            OwnerKind.ARGO_CD,
            "Argo CD's Application net",
        ),
        (
            {
                "labels": {
                    "kustomize.toolkit.fluxcd.io/name": "net",
                    "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
                }
            },
            OwnerKind.FLUX,
            "Flux's Kustomization flux-system/net",
        ),
        ({"labels": {"helm.toolkit.fluxcd.io/name": "net"}}, OwnerKind.FLUX, "Flux's HelmRelease net"),
        ({"labels": {"addonmanager.kubernetes.io/mode": "Reconcile"}}, OwnerKind.ADDON, "the addon-manager"),
        ({"labels": {"kubernetes.azure.com/managedby": "aks"}}, OwnerKind.ADDON, "AKS's add-on"),
        ({"managedFields": [{"manager": "eks", "operation": "Apply"}]}, OwnerKind.ADDON, "EKS"),
        (
            {"ownerReferences": [{"kind": "Network", "name": "cluster", "controller": True}]},
            OwnerKind.CONTROLLER,
            "Network cluster",
        ),
    ],
)
def test_an_owner_that_would_take_changes_back_is_named(metadata: Any, kind: OwnerKind, name: str) -> None:
    (found,) = owners_of(daemon_set(**metadata))
    assert (found.kind, found.name, found.yields) == (kind, name, False)
    assert found.evidence


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"labels": {"k8s-app": "kube-proxy", "app.kubernetes.io/instance": "anything"}},
        {
            "labels": {
                "addonmanager.kubernetes.io/mode": "EnsureExists",
                "kubernetes.io/cluster-service": "true",
            }
        },
        {"managedFields": [{"manager": "kubeadm", "operation": "Update"}]},
        {"ownerReferences": [{"kind": "Thing", "name": "x"}]},
    ],
)
def test_who_only_made_it_is_no_owner(metadata: Any) -> None:
    assert owners_of(daemon_set(**metadata)) == ()


def test_an_owner_yields_when_the_daemonset_says_so() -> None:
    item = daemon_set(
        labels={"argocd.argoproj.io/instance": "net"}, annotations={"handover.dev/owner-yields": "true"}
    )
    assert all(owner.yields for owner in owners_of(item))


def test_the_same_owner_is_told_once() -> None:
    item = daemon_set(
        labels={"argocd.argoproj.io/instance": "net"},
        annotations={"argocd.argoproj.io/tracking-id": "net:apps/DaemonSet:kube-system/kube-proxy"},
        managedFields=[{"manager": "argocd-controller", "operation": "Apply"}],
    )
    assert len(owners_of(item)) == 1
