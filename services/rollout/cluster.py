"""The Kubernetes API, as far as the controller needs it. Every call may raise ApiException or urllib3's HTTPError."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubernetes import client
from kubernetes import config as kubernetes_config
from kubernetes.client.exceptions import ApiException

from services.rollout.config import RolloutConfig
from services.rollout.observed import Workload

WISH_LABEL = "recmesh.io/rollout"
"""A ConfigMap with it says what somebody wants; its value is the scenario."""

_MERGE = "application/merge-patch+json"
_MANAGER = "recmesh-rollout"
# So often an init container may fail before its message is taken for the last word.
_TRIES = 2


@dataclass(frozen=True)
class Document:
    """A ConfigMap, as read."""

    name: str
    uid: str
    version: str
    """Kubernetes' resourceVersion: a write that names an older one is refused."""
    data: dict[str, str]


@dataclass(frozen=True)
class Deployed:
    """A Deployment, as read."""

    workload: Workload
    version: str
    """Its resourceVersion."""


class TimedClient(client.ApiClient):
    """Gives every call a time limit; the generated client has none of its own."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__()
        self._timeout_s = timeout_s

    def call_api(self, *arguments: Any, **named: Any) -> Any:
        """As the generated client's."""
        named["_request_timeout"] = named.get("_request_timeout") or self._timeout_s
        return super().call_api(*arguments, **named)


def open_client(config: RolloutConfig) -> TimedClient:
    """A client to the cluster that the settings name. kubernetes.config.ConfigException where there is none."""
    if config.kubeconfig is not None:
        kubernetes_config.load_kube_config(str(config.kubeconfig))
    else:
        kubernetes_config.load_incluster_config()
    return TimedClient(config.request_timeout_s)


class Cluster:
    """Objects of one namespace."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._namespace = namespace
        self._core = client.CoreV1Api(api)
        self._apps = client.AppsV1Api(api)

    def wishes(self) -> dict[str, list[Document]]:
        """The labelled ConfigMaps, by the scenario that their label names."""
        found: dict[str, list[Document]] = {}
        listed: Any = self._core.list_namespaced_config_map(self._namespace, label_selector=WISH_LABEL)
        for item in listed.items:
            found.setdefault(item.metadata.labels[WISH_LABEL], []).append(_document(item))
        return found

    def read(self, name: str) -> Document:
        """A ConfigMap."""
        return _document(self._core.read_namespaced_config_map(name, self._namespace))

    def write(self, document: Document, key: str, text: str | None) -> None:
        """Set or remove one key, unless somebody changed the ConfigMap since it was read (ApiException 409)."""
        body = {"metadata": {"resourceVersion": document.version}, "data": {key: text}}
        self._core.patch_namespaced_config_map(
            document.name, self._namespace, body, field_manager=_MANAGER, _content_type=_MERGE
        )

    def deployment(self, name: str, annotation: str, container: str) -> Deployed:
        """A Deployment; `annotation` of its pods, and what its init container `container` says where it fails."""
        found: Any = self._apps.read_namespaced_deployment(name, self._namespace)
        serves = (found.spec.template.metadata.annotations or {}).get(annotation)
        done = _rolled_out(found)
        problem = "" if done else self._problem(found, annotation, serves, container)
        return Deployed(Workload(name, serves, done, problem), found.metadata.resource_version)

    def annotate(self, name: str, version: str, annotation: str, value: str) -> None:
        """Annotate a Deployment's pods, which replaces them, unless it was changed since it was read (409)."""
        body = {
            "metadata": {"resourceVersion": version},
            "spec": {"template": {"metadata": {"annotations": {annotation: value}}}},
        }
        self._apps.patch_namespaced_deployment(
            name, self._namespace, body, field_manager=_MANAGER, _content_type=_MERGE
        )

    def record(self, about: Document, name: str, kind: str, reason: str, message: str, time: datetime) -> None:
        """Make an Event about a ConfigMap; one of that name that is there already is left as it is."""
        event = client.CoreV1Event(
            metadata=client.V1ObjectMeta(name=name, namespace=self._namespace),
            involved_object=client.V1ObjectReference(
                api_version="v1", kind="ConfigMap", name=about.name, namespace=self._namespace, uid=about.uid
            ),
            type=kind,
            reason=reason,
            message=message[:1_024],
            source=client.V1EventSource(component=_MANAGER),
            first_timestamp=time,
            last_timestamp=time,
            count=1,
        )
        try:
            self._core.create_namespaced_event(self._namespace, event)
        except ApiException as error:
            if error.status != 409:
                raise

    def _problem(self, found: Any, annotation: str, serves: str | None, container: str) -> str:
        selector = ",".join(f"{key}={value}" for key, value in found.spec.selector.match_labels.items())
        listed: Any = self._core.list_namespaced_pod(self._namespace, label_selector=selector)
        for pod in listed.items:
            if (pod.metadata.annotations or {}).get(annotation) != serves or pod.status is None:
                continue
            for status in pod.status.init_container_statuses or []:
                if status.name != container or status.restart_count < _TRIES:
                    continue
                states = [state for state in (status.state, status.last_state) if state is not None]
                ended = next((state.terminated for state in states if state.terminated is not None), None)
                if ended is not None and ended.exit_code:
                    return (ended.message or f"{container} ends with status {ended.exit_code}").strip()
        return ""


def _document(item: Any) -> Document:
    return Document(item.metadata.name, item.metadata.uid, item.metadata.resource_version, dict(item.data or {}))


def _rolled_out(found: Any) -> bool:
    """As `kubectl rollout status` has it."""
    status = found.status
    if status is None or (status.observed_generation or 0) < (found.metadata.generation or 0):
        return False
    wanted = 1 if found.spec.replicas is None else found.spec.replicas
    updated = status.updated_replicas or 0
    return updated >= wanted and (status.replicas or 0) <= updated and (status.available_replicas or 0) >= updated
