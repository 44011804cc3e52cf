"""A double of the Kubernetes API, in this process: it stores objects, and nothing else.

It is not Kubernetes. It admits whatever it is given, whoever asks, runs no controller, makes no pod and gives no
defaults. It refuses a write that names an older resourceVersion. Of server-side apply it knows the case of one manager
that applies: what that one applied before and leaves out now goes, what others wrote beside it stays. So it proves what
a client sends and in which order, and no more.
"""

import copy
import itertools
import json
import re
import threading
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.chart.protobuf_secret import MAGIC, read_secret

Object = dict[str, Any]

# group/version → kind → (resource, whether it lives in a namespace)
RESOURCES: dict[str, dict[str, tuple[str, bool]]] = {
    "v1": {
        "Namespace": ("namespaces", False),
        "Pod": ("pods", True),
        "Service": ("services", True),
        "ServiceAccount": ("serviceaccounts", True),
        "ConfigMap": ("configmaps", True),
        "Secret": ("secrets", True),
        "Event": ("events", True),
    },
    "apps/v1": {"Deployment": ("deployments", True), "StatefulSet": ("statefulsets", True)},
    "batch/v1": {"Job": ("jobs", True), "CronJob": ("cronjobs", True)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
    "autoscaling/v2": {"HorizontalPodAutoscaler": ("horizontalpodautoscalers", True)},
    "networking.k8s.io/v1": {"NetworkPolicy": ("networkpolicies", True)},
    "coordination.k8s.io/v1": {"Lease": ("leases", True)},
    "rbac.authorization.k8s.io/v1": {"Role": ("roles", True), "RoleBinding": ("rolebindings", True)},
    "scheduling.k8s.io/v1": {"PriorityClass": ("priorityclasses", False)},
    "cert-manager.io/v1": {"Certificate": ("certificates", True)},
    "keda.sh/v1alpha1": {"ScaledObject": ("scaledobjects", True)},
    "monitoring.coreos.com/v1": {
        "PrometheusRule": ("prometheusrules", True),
        "ServiceMonitor": ("servicemonitors", True),
    },
    "gateway.networking.k8s.io/v1": {"GRPCRoute": ("grpcroutes", True)},
}
_KIND = {resource: kind for kinds in RESOURCES.values() for kind, (resource, _) in kinds.items()}
_PATH = re.compile(
    r"^/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?$"
)
# What a server adds to an object, and so no part of what a client meant.
_SERVER_FIELDS = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation")


class ApiError(Exception):
    """An answer other than success."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class ApiDouble:
    """A context manager. `writes` lists what was done to which object since it was last cleared, as
    ("created" | "changed" | "deleted", kind, name); Helm's own records of releases are left out.
    """

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._applied: dict[tuple[str, str, str], Object] = {}
        self.after_write: Callable[[str, str, str], None] | None = None
        """Called with every entry of `writes`, before the client gets its answer."""
        self._lock = threading.Lock()
        self._versions = itertools.count(1)
        self.writes: list[tuple[str, str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "ApiDouble":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def write_kubeconfig(self, file: Path) -> Path:
        """A file that leads clients here."""
        context = {"name": "double", "context": {"cluster": "double", "user": "double", "namespace": "mesh"}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "double", "cluster": {"server": self.address}}],
            "users": [{"name": "double", "user": {}}],
            "contexts": [context],
            "current-context": "double",
        }
        file.write_text(yaml.safe_dump(config))
        return file

    def objects(self) -> dict[tuple[str, str], Object]:
        """What clients put here, by kind and name, without what a server adds; Helm's records left out."""
        with self._lock:
            return {
                (_KIND[resource], name): _meant(stored)
                for (resource, _, name), stored in self._objects.items()
                if not _is_record(stored)
            }

    def put(self, stored: Object) -> None:
        """An object, or a change of one, that some other client made."""
        metadata = stored["metadata"]
        resource = next(kinds[stored["kind"]][0] for kinds in RESOURCES.values() if stored["kind"] in kinds)
        with self._lock:
            self._store((resource, metadata.get("namespace", ""), metadata["name"]), stored)

    def delete(self, kind: str, name: str) -> None:
        """Some other client removes it; nothing happens where it is not there."""
        with self._lock:
            for key in [key for key in self._objects if (_KIND[key[0]], key[2]) == (kind, name)]:
                self._note("deleted", key, self._objects.pop(key))

    def get(self, kind: str, name: str) -> Object:
        """A copy of an object with what a server adds. KeyError where there is none."""
        with self._lock:
            return next(
                copy.deepcopy(stored)
                for (resource, _, own), stored in self._objects.items()
                if (_KIND[resource], own) == (kind, name)
            )

    def set_status(self, kind: str, name: str, status: Object) -> None:
        """What a controller of the cluster would say of an object: no change of what it is to be."""
        with self._lock:
            for (resource, _, own), stored in self._objects.items():
                if (_KIND[resource], own) == (kind, name) and stored.get("status") != status:
                    stored["status"] = status
                    stored["metadata"]["resourceVersion"] = str(next(self._versions))

    def answer(self, method: str, path: str, query: dict[str, str], body: Object | None, kind: str) -> Object:
        """The answer to one request. ApiError for one that fails."""
        if method == "GET" and (found := _discover(path)) is not None:
            return found
        match = _PATH.match(path)
        if match is None or match["resource"] not in _KIND:
            raise ApiError(404, "NotFound", f"the double knows no {path}")
        resource, namespace, name = match["resource"], match["namespace"] or "", match["name"]
        with self._lock:
            if method == "GET" and name is None:
                return self._list(resource, namespace, query.get("labelSelector", ""))
            if method == "POST":
                assert body is not None
                name = body["metadata"]["name"]
                if (resource, namespace, name) in self._objects:
                    raise ApiError(409, "AlreadyExists", f"{resource} {name!r} already exists")
                return self._store((resource, namespace, name), body)
            key = (resource, namespace, str(name))
            if method == "PATCH" and "apply" in kind:
                assert body is not None
                return self._apply(key, body)
            if key not in self._objects:
                raise ApiError(404, "NotFound", f'{resource} "{name}" not found')
            if method == "GET":
                return self._objects[key]
            if method == "DELETE":
                gone = self._objects.pop(key)
                self._note("deleted", key, gone)
                return gone
            assert body is not None
            named, present = (
                one["metadata"].get("resourceVersion") for one in ({"metadata": {}} | body, self._objects[key])
            )
            if named is not None and named != present:
                raise ApiError(409, "Conflict", f"{resource} {name!r} was changed: {named} is older than {present}")
            return self._store(key, body if method == "PUT" else _merge(self._objects[key], body))

    def _list(self, resource: str, namespace: str, selector: str) -> Object:
        wanted = [part.replace("==", "=").partition("=") for part in selector.split(",") if part]
        items = [
            stored
            for (kind, place, _), stored in sorted(self._objects.items())
            if kind == resource
            and place == namespace
            and all(_labelled(stored["metadata"].get("labels") or {}, *part) for part in wanted)
        ]
        version = next(group for group, kinds in RESOURCES.items() if _KIND[resource] in kinds)
        return {
            "kind": f"{_KIND[resource]}List",
            "apiVersion": version,
            "metadata": {"resourceVersion": "1"},
            "items": items,
        }

    def _apply(self, key: tuple[str, str, str], body: Object) -> Object:
        before, applied = self._objects.get(key), self._applied.get(key)
        self._applied[key] = copy.deepcopy(body)
        return self._store(key, body if before is None else _three_way(before, applied, body))

    def _store(self, key: tuple[str, str, str], body: Object) -> Object:
        before = self._objects.get(key)
        stored = copy.deepcopy(body)
        metadata = stored["metadata"]
        if before is not None and _meant(before) == _meant(stored):
            return before
        for field in _SERVER_FIELDS:
            metadata.pop(field, None)
        old = before["metadata"] if before is not None else {}
        metadata["uid"] = old.get("uid") or str(uuid.uuid4())
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
        metadata["resourceVersion"] = str(next(self._versions))
        metadata["generation"] = old.get("generation", 0) + 1
        self._objects[key] = stored
        self._note("created" if before is None else "changed", key, stored)
        return stored

    def _note(self, what: str, key: tuple[str, str, str], stored: Object) -> None:
        if not _is_record(stored):
            self.writes.append((what, _KIND[key[0]], key[2]))
            if self.after_write is not None:
                self.after_write(what, _KIND[key[0]], key[2])


def _is_record(stored: Object) -> bool:
    return stored.get("type") == "helm.sh/release.v1"


def _meant(stored: Object) -> Object:
    meant = copy.deepcopy(stored)
    for field in _SERVER_FIELDS:
        meant["metadata"].pop(field, None)
    return meant


def _labelled(labels: dict[str, str], name: str, equals: str, value: str) -> bool:
    return labels.get(name) == value if equals else name in labels


def _three_way(present: Any, applied: Any, wanted: Any) -> Any:
    """`wanted`, and beside it what is present and was not applied before."""
    if not isinstance(present, dict) or not isinstance(wanted, dict):
        return copy.deepcopy(wanted)
    own = applied if isinstance(applied, dict) else {}
    result = {key: _three_way(present.get(key), own.get(key), value) for key, value in wanted.items()}
    return result | {key: value for key, value in present.items() if key not in wanted and key not in own}


def _merge(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


def _discover(path: str) -> Object | None:
    """What a client asks to learn which kinds there are."""
    if path == "/version":
        return {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    groups = [version for version in RESOURCES if "/" in version]
    if path == "/apis":
        entries = [
            {"name": version.split("/")[0], "versions": [entry], "preferredVersion": entry}
            for version in groups
            for entry in [{"groupVersion": version, "version": version.split("/")[1]}]
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": entries}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version in RESOURCES and path in (f"/api/{version}", f"/apis/{version}"):
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        resources = [
            {"name": resource, "singularName": kind.lower(), "namespaced": inside, "kind": kind, "verbs": verbs}
            for kind, (resource, inside) in RESOURCES[version].items()
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
    return None


def _read(text: bytes) -> Object:
    """A body: protobuf for what Helm keeps releases in, else YAML, of which JSON is a part."""
    if text.startswith(MAGIC):
        return read_secret(text)
    return json.loads(text) if text[:1] == b"{" else yaml.safe_load(text)


def _handler(double: ApiDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Header and body in one packet: the second of two would wait for the client's delayed acknowledgement.
        wbufsize = -1

        def log_message(self, *_: object) -> None:
            pass

        def _do(self) -> None:
            split = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length)
            body = _read(text) if text and self.command != "DELETE" else None
            query = {key: values[0] for key, values in parse_qs(split.query).items()}
            try:
                code, answer = (
                    200,
                    double.answer(self.command, split.path, query, body, self.headers.get("Content-Type") or ""),
                )
            except ApiError as error:
                code = error.code
                answer = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": error.reason}
                answer |= {"message": str(error), "code": code}
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _do  # noqa: N815 - the base class looks for these names

    return Handler
