"""An API server that serves only `cluster.py`, or a file: enough for a real kube-proxy to write its rules from.

Plain HTTP on 127.0.0.1, to be run inside the network namespace that kube-proxy runs in. Lists and watches,
no writes. Of label selectors it knows what kube-proxy asks for: that a label is not there.
"""

import json
import sys
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from tests.kubeproxy import cluster


class Handler(BaseHTTPRequestHandler):
    """Answers lists from memory; a watch sends what a list would, then nothing more."""

    objects: ClassVar[dict[str, Sequence[Any]]] = {}
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        kind = url.path.rstrip("/").rsplit("/", 1)[-1]
        if kind not in self.objects:
            self.answer(404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})
            return
        items = [item for item in self.objects[kind] if selected(item, query.get("labelSelector", [""])[0])]
        if "watch" not in query:
            like = self.objects[kind][0]
            head = {"kind": like["kind"] + "List", "apiVersion": like["apiVersion"]}
            self.answer(200, {**head, "metadata": {"resourceVersion": "1"}, "items": items})
            return
        if "sendInitialEvents" in query:  # a streaming list: kube-proxy falls back to list and watch
            self.answer(
                422,
                {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422, "reason": "Invalid"},
            )
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        time.sleep(float(query.get("timeoutSeconds", ["300"])[0]))
        self.close_connection = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(201, {})

    do_PATCH = do_POST  # noqa: N815

    def answer(self, code: int, body: object) -> None:
        raw = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


def selected(item: Any, selector: str) -> bool:
    """Whether an object has none of the labels that the selector excludes."""
    labels = item["metadata"].get("labels", {})
    for term in filter(None, selector.split(",")):
        if not term.startswith("!"):
            raise NotImplementedError(f"label selector {selector}")
        if term[1:] in labels:
            return False
    return True


def serve(port: int, file: str = "") -> None:
    if file:
        Handler.objects = json.loads(Path(file).read_text())
    else:
        Handler.objects = everything()
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def everything() -> dict[str, Sequence[Any]]:
    services, slices = cluster.cluster()
    return {
        "services": services,
        "endpointslices": slices,
        "nodes": [cluster.node()],
        "servicecidrs": [cluster.service_cidr()],
    }


if __name__ == "__main__":
    serve(int(sys.argv[1]), *sys.argv[2:])
