"""A pod with a connected UDP socket, which is all that some programs ever open, and its server's pods.

The client says what happens to it in its log: who answered, and which error it got. It connects anew after an error only.
"""

from e2e.kube import Object
from e2e.traffic import deploy
from e2e.trial import Trial, until

_NAME, _RETIRED = "connected", "retired"
_PROGRAM = """
import socket, sys, time
def connected():
    made = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(1)
    made.connect((sys.argv[1], 81))
    return made
link = None
while True:
    try:
        link = link or connected()  # refused as well, while the Service has no endpoint at all
        link.send(b"hostname")
        print("answer", link.recv(100).decode(), flush=True)
    except TimeoutError:
        print("silence", flush=True)
    except OSError as error:
        print("error", error.errno, flush=True)
        if link:
            link.close()
        link = None
    time.sleep(0.1)
"""


def a_backend_goes_away(trial: Trial, image: str) -> dict[str, list[str]]:
    """Take the backend of a connected socket out of its Service, in both families, and tell what the client saw.

    The pod stays, and would go on answering: what makes the client leave it is not the pod's own kernel. By address of
    the Service; what repeats itself is told once. Raises TrialError when a client does not get to another backend.
    """
    kube = trial.kube
    kube.apply(*_servers(image))
    trial.lab.rollout(f"deployment/{_NAME}", deploy.NAMESPACE)
    addresses: list[str] = kube.get("Service", _NAME, deploy.NAMESPACE)["spec"]["clusterIPs"]
    kube.apply(*(_client(image, number, address) for number, address in enumerate(addresses)))
    clients = {address: f"{_NAME}-client-{number}" for number, address in enumerate(addresses)}
    try:
        firsts = {
            address: until(f"a client of {address} is answered", lambda pod=pod: _answers(trial, pod), 60)[0]  # type: ignore[misc]
            for address, pod in clients.items()
        }
        for backend in set(firsts.values()):
            kube.patch("Pod", backend, {"metadata": {"labels": {"app": _RETIRED}}}, deploy.NAMESPACE)
        for address, pod in clients.items():
            until(
                f"the client of {address} has another backend than {firsts[address]}",
                lambda pod=pod: len(set(_answers(trial, pod))) > 1,  # type: ignore[misc]
                90,
                lambda pod=pod: _log(trial, pod)[-5:],  # type: ignore[misc]
            )
        return {address: _changes(_log(trial, pod)) for address, pod in clients.items()}
    finally:
        retired = [pod["metadata"]["name"] for pod in kube.list("Pod", deploy.NAMESPACE, f"app={_RETIRED}")]
        for pod in (*clients.values(), *retired):
            kube.delete("Pod", pod, deploy.NAMESPACE, grace_s=0)
        kube.delete("Service", _NAME, deploy.NAMESPACE)
        kube.delete("Deployment", _NAME, deploy.NAMESPACE)


def _log(trial: Trial, pod: str) -> list[str]:
    return trial.kube.log(pod, deploy.NAMESPACE).splitlines()


def _answers(trial: Trial, pod: str) -> list[str]:
    return [line.split()[1] for line in _log(trial, pod) if line.startswith("answer ")]


def _changes(lines: list[str]) -> list[str]:
    """The first word of each line, and an error's number, once for as long as it stays."""
    words = [line if line.startswith("error") else line.split()[0] for line in lines if line]
    return [word for i, word in enumerate(words) if i == 0 or word != words[i - 1]]


def _servers(image: str) -> list[Object]:
    command = "exec agnhost netexec --http-port=8080 --udp-port=8081 >/dev/null 2>&1"
    container = {
        "name": "server",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", command],
        "env": [{"name": "GOMAXPROCS", "value": "1"}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
    }
    labels = {"app": _NAME}
    template = {
        "metadata": {"labels": labels},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": _NAME, "namespace": deploy.NAMESPACE},
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": _NAME, "namespace": deploy.NAMESPACE},
            "spec": {
                "ipFamilyPolicy": "PreferDualStack",
                "selector": labels,
                "ports": [{"name": "udp", "port": 81, "targetPort": 8081, "protocol": "UDP"}],
            },
        },
    ]


def _client(image: str, number: int, address: str) -> Object:
    container = {
        "name": "client",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-I", "-c", _PROGRAM, address],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{_NAME}-client-{number}", "namespace": deploy.NAMESPACE},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "restartPolicy": "Never",
            "securityContext": {"runAsUser": 10001, "runAsGroup": 10001, "runAsNonRoot": True},
            "containers": [container],
        },
    }
