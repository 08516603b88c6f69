"""Tokens that rotate, kubeconfigs that cannot be used, and what is said about them."""

import base64
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml
from handover_agent.apierrors import CredentialsError
from handover_agent.credentials import Address, Credentials

pytestmark = pytest.mark.unit

TLS = Path(__file__).parent / "tls"
IN_A_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """A ServiceAccount as kubelet mounts it: files are links into a directory that is swapped."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(f"token-{name}\n")
        (tmp_path / name / "ca.crt").write_text((TLS / "ca.pem").read_text())
    (tmp_path / "..data").symlink_to("one")
    for name in ("token", "ca.crt"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    return tmp_path


def rotate(account: Path) -> None:
    (account / "..fresh").symlink_to("two")
    (account / "..fresh").rename(account / "..data")


def test_in_a_pod_the_service_account_is_used(account: Path) -> None:
    credentials = Credentials.in_cluster(account, IN_A_POD)
    assert credentials.bootstrap == Address("10.96.0.1", 443)
    assert credentials.server_name == "kubernetes.default.svc"
    assert credentials.headers() == {"Authorization": "Bearer token-one"}
    assert isinstance(credentials.tls(), ssl.SSLContext)


def test_a_token_that_kubelet_replaced_is_used_at_once(account: Path) -> None:
    credentials = Credentials.in_cluster(account, IN_A_POD)
    credentials.headers()
    rotate(account)
    assert credentials.headers() == {"Authorization": "Bearer token-two"}


def test_a_token_may_be_read_again_though_its_time_stamp_is_the_same(account: Path) -> None:
    credentials = Credentials.in_cluster(account, IN_A_POD)
    credentials.headers()
    before = (account / "token").stat()
    (account / "token").write_text("token-new\n")
    os.utime(account / "token", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert credentials.headers() == {"Authorization": "Bearer token-one"}
    credentials.forget()
    assert credentials.headers() == {"Authorization": "Bearer token-new"}


def test_a_replaced_ca_makes_a_new_tls_context(account: Path) -> None:
    credentials = Credentials.in_cluster(account, IN_A_POD)
    first = credentials.tls()
    assert credentials.tls() is first
    (account / "two" / "ca.crt").write_text((TLS / "other-ca.pem").read_text())
    rotate(account)
    assert credentials.tls() is not first


def test_a_configured_url_is_where_to_begin(account: Path) -> None:
    credentials = Credentials.in_cluster(account, {}, url="https://[fd00::1]:6443")
    assert credentials.bootstrap == Address("fd00::1", 6443)
    assert str(credentials.bootstrap) == "[fd00::1]:6443"


@pytest.mark.parametrize(
    ("spoil", "environ", "message"),
    [
        (
            lambda d: (d / "token").unlink(),
            IN_A_POD,
            r"ServiceAccount token .*/token cannot be read: .*mount a",
        ),
        (lambda d: (d / "token").write_text("\n"), IN_A_POD, r"ServiceAccount token .*/token is empty"),
        (lambda d: (d / "ca.crt").unlink(), IN_A_POD, r"cluster CA .*/ca.crt cannot be read"),
        (
            lambda _: None,
            {},
            r"KUBERNETES_SERVICE_HOST and .* not set: this is no pod; run in a pod, or name",
        ),
        (
            lambda _: None,
            {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "tcp"},
            "not set",
        ),
    ],
)
def test_an_account_that_cannot_be_used_is_a_clear_error(
    account: Path, spoil: Any, environ: dict[str, str], message: str
) -> None:
    spoil(account)
    with pytest.raises(CredentialsError, match=message):
        Credentials.in_cluster(account, environ)


def test_a_url_that_is_none_is_a_clear_error(account: Path) -> None:
    with pytest.raises(CredentialsError, match=r"the configured API server URL '10\.0\.0\.1' is unusable"):
        Credentials.in_cluster(account, {}, url="10.0.0.1")


def test_a_ca_that_is_none_is_a_clear_error(account: Path) -> None:
    (account / "ca.crt").write_text("nonsense")
    with pytest.raises(CredentialsError, match="CA or client certificate is unusable"):
        Credentials.in_cluster(account, IN_A_POD).tls()


def kubeconfig(**changes: Any) -> dict[str, Any]:
    client = (TLS / "client.pem").read_text()
    certificate, key = client.split("-----BEGIN PRIVATE KEY-----")

    def inline(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    cluster = {
        "server": "https://10.0.0.1:6443",
        "certificate-authority-data": inline((TLS / "ca.pem").read_text()),
    }
    user = {
        "client-certificate-data": inline(certificate),
        "client-key-data": inline("-----BEGIN PRIVATE KEY-----" + key),
    }
    document: dict[str, Any] = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": cluster | changes.get("cluster", {})}],
        "users": [{"name": "u", "user": changes.get("user", user)}],
    }
    document.update(changes.get("top", {}))
    return document


def written(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "config"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_a_kubeconfig_with_inline_certificates_is_used(tmp_path: Path) -> None:
    credentials = Credentials.kubeconfig(written(tmp_path, kubeconfig()))
    assert credentials.bootstrap == Address("10.0.0.1", 6443)
    assert (credentials.bootstrap_name, credentials.server_name) == ("10.0.0.1", "kubernetes.default.svc")
    assert credentials.headers() == {}


def test_files_that_a_kubeconfig_names_are_found_beside_it(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text((TLS / "ca.pem").read_text())
    (tmp_path / "secret").write_text("from-file")
    cluster = {"certificate-authority-data": "", "certificate-authority": "ca.pem"}
    path = written(tmp_path, kubeconfig(cluster=cluster, user={"tokenFile": "secret"}))
    assert Credentials.kubeconfig(path).headers() == {"Authorization": "Bearer from-file"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("]", "cannot be read"),
        ("just text", "is not a kubeconfig"),
        ({}, "has no context named ''"),
        (kubeconfig(top={"current-context": "x"}), "has no context named 'x'"),
        (kubeconfig(top={"users": []}), "has no user named 'u'"),
        (kubeconfig(cluster={"server": "10.0.0.1"}), "'10.0.0.1' is unusable.*https://HOST:PORT"),
        (kubeconfig(cluster={"certificate-authority-data": "%%"}), "certificate-authority cannot be read"),
        (kubeconfig(cluster={"insecure-skip-tls-verify": True}), "insecure-skip-tls-verify is not supported"),
        (kubeconfig(user={"exec": {"command": "aws"}}), "signs in by 'exec'"),
        (kubeconfig(user={"client-certificate": "gone.pem", "client-key": "gone.key"}), "cannot be read"),
        (kubeconfig(user={"client-certificate-data": "YQ==", "client-key-data": "YQ=="}), "is unusable"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_a_clear_error(
    tmp_path: Path, document: Any, message: str
) -> None:
    with pytest.raises(CredentialsError, match=message):
        Credentials.kubeconfig(written(tmp_path, document))


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"kubeconfig .*/nothing cannot be read: .*No such file"):
        Credentials.kubeconfig(tmp_path / "nothing")
