"""Who else keeps kube-proxy's DaemonSet as they want it: found before anything is changed, not in a fight.

Only what would take changes back counts: a manifest applied by hand, by kubeadm or by an addon-manager that
only ensures existence is nobody's wish for every moment.
"""

from collections.abc import Mapping
from typing import Any

from handover_operator.facts import OwnerFacts, OwnerKind
from handover_operator.preflight import YIELDS_ANNOTATION

_ARGO_TRACKING = "argocd.argoproj.io/tracking-id"
_ARGO_INSTANCE = "argocd.argoproj.io/instance"
_INSTANCE = "app.kubernetes.io/instance"
_FLUX = {
    "kustomize.toolkit.fluxcd.io": "Kustomization",
    "helm.toolkit.fluxcd.io": "HelmRelease",
}
_ADDON_MODE = "addonmanager.kubernetes.io/mode"
_CLUSTER_SERVICE = "kubernetes.io/cluster-service"
_PROVIDERS = {
    "kubernetes.azure.com/managedby": "AKS",
    "eks.amazonaws.com/component": "EKS",
    "addon.kops.k8s.io/name": "kOps",
}
_MANAGERS = {
    "eks": "EKS",
    "argocd-controller": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
}
_KIND_OF = {"EKS": OwnerKind.ADDON, "Argo CD": OwnerKind.ARGO_CD, "Flux": OwnerKind.FLUX}


def owners_of(daemon_set: Mapping[str, Any]) -> tuple[OwnerFacts, ...]:
    """Everybody who would take our changes back, each once, with the evidence."""
    metadata = daemon_set["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    managers = {entry.get("manager", "") for entry in metadata.get("managedFields") or []}
    yields = annotations.get(YIELDS_ANNOTATION) == "true"
    found: dict[OwnerKind, OwnerFacts] = {}

    def note(kind: OwnerKind, name: str, evidence: str) -> None:
        found.setdefault(kind, OwnerFacts(kind, name, evidence, yields))

    if tracking := annotations.get(_ARGO_TRACKING):
        application = tracking.split(":", 1)[0].replace("_", "/", 1)
        note(OwnerKind.ARGO_CD, f"Argo CD's Application {application}", f"annotation {_ARGO_TRACKING}")
    if application := labels.get(_ARGO_INSTANCE):
        note(OwnerKind.ARGO_CD, f"Argo CD's Application {application}", f"label {_ARGO_INSTANCE}")
    for prefix, kind in _FLUX.items():
        if name := labels.get(f"{prefix}/name"):
            where = labels.get(f"{prefix}/namespace", "")
            note(
                OwnerKind.FLUX, f"Flux's {kind} {f'{where}/' if where else ''}{name}", f"label {prefix}/name"
            )
    if labels.get(_ADDON_MODE) == "Reconcile":
        note(OwnerKind.ADDON, "the addon-manager", f"label {_ADDON_MODE}=Reconcile")
    elif labels.get(_CLUSTER_SERVICE) == "true" and _ADDON_MODE not in labels:
        note(OwnerKind.ADDON, "the addon-manager", f"label {_CLUSTER_SERVICE}=true")
    for label, provider in _PROVIDERS.items():
        if label in labels:
            note(OwnerKind.ADDON, f"{provider}'s add-on", f"label {label}={labels[label]}")
    for manager in sorted(managers & _MANAGERS.keys()):
        name = _MANAGERS[manager]
        if manager.startswith("argocd") and (instance := labels.get(_INSTANCE)):
            name = f"Argo CD's Application {instance}"
        note(_KIND_OF[_MANAGERS[manager]], name, f"field manager {manager}")
    for reference in metadata.get("ownerReferences") or []:
        if reference.get("controller"):
            note(
                OwnerKind.CONTROLLER,
                f"{reference['kind']} {reference['name']}",
                "its controlling ownerReference",
            )
    return tuple(found.values())
