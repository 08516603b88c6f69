"""A way to the API server is found, or the file and what to do are named."""

import json
from pathlib import Path
from typing import Any

import pytest
from handover_operator.__main__ import main
from handover_operator.access import AccessError, find

pytestmark = pytest.mark.unit


def kubeconfig(path: Path, **user: Any) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443/"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(config))
    return path


def test_a_kubeconfigs_token_is_sent(tmp_path: Path) -> None:
    access = find(str(kubeconfig(tmp_path / "config", token="secret")))
    assert access.server == "https://10.0.0.1:6443"
    assert access.headers() == {"Authorization": "Bearer secret"}
    assert "secret" not in repr(access)
    kopf = access.for_kopf()
    assert (kopf.scheme, kopf.token) == ("Bearer", "secret")


def test_a_kubeconfig_without_a_token_sends_none(tmp_path: Path) -> None:
    assert find(str(kubeconfig(tmp_path / "config"))).headers() == {}


def test_a_pods_service_account_is_used_and_its_token_read_anew(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = find(None, environment=environment, service_account=tmp_path)
    assert access.server == "https://[fd00::1]:443"
    assert access.headers() == {"Authorization": "Bearer first"}
    token.write_text("second\n")
    assert access.headers() == {"Authorization": "Bearer second"}


def test_a_named_kubeconfig_goes_before_the_service_account(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config")
    environment = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    assert find(str(path), environment=environment, service_account=tmp_path).source == str(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("", "names no cluster"),
        ("{", "is no valid YAML"),
        ("\x00", "is no valid YAML"),
        ("hello", "names no cluster"),
        ("[1]", "names no cluster"),
        ("clusters: [{name: c, cluster: {}}]", "cannot be used"),
        ("clusters: [{name: c, cluster: {}}]\ncurrent-context: x\ncontexts: []\nusers: []", "cannot be used"),
    ],
)
def test_an_unusable_kubeconfig_is_named_with_what_to_do(
    tmp_path: Path, content: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AccessError) as error:
        find(str(path))
    assert f"the kubeconfig {path}" in str(error.value)
    assert said in str(error.value)
    assert "--kubeconfig" in str(error.value)
    assert main(["--kubeconfig", str(path)]) == 1
    written = capsys.readouterr().err
    assert said in written
    assert "Traceback" not in written


def test_an_unknown_context_is_named(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="nowhere"):
        find(str(kubeconfig(tmp_path / "config")), "nowhere")
