"""Writes charts/recmesh/values.schema.json: shapes from values.yaml, limits from here, scenarios from the services'
own settings. `--check` only compares, and ends with status 1 when the file is not what would be written.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from deploy.triton.settings import TritonSettings
from services.candidate.config import CandidateSettings
from services.feature.config import FeatureSettings
from services.feedback.config import FeedbackSettings
from services.ranking.config import RankingSettings
from services.runtime.people import PeopleSettings
from services.runtime.scenario import NAME_PATTERN, SECTIONS, ScenarioHead
from services.scoring.config import ScoringSettings

Schema = dict[str, Any]

CHART = Path(__file__).parents[1] / "charts" / "recmesh"
FILE = CHART / "values.schema.json"

_SECTIONS = {
    "ranking": RankingSettings,
    "feature": FeatureSettings,
    "candidate": CandidateSettings,
    "scoring": ScoringSettings,
    "feedback": FeedbackSettings,
    "triton": TritonSettings,
    "people": PeopleSettings,
}

_QUANTITY = {"type": ["string", "number"], "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}
_RESOURCES = {
    "type": "object",
    "additionalProperties": False,
    "properties": {part: {"type": "object", "additionalProperties": _QUANTITY} for part in ("requests", "limits")},
}
_VERSION = {"type": "string", "pattern": "^$|^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"}
_ONE = {"const": 1}
_WHOLE = {"type": "integer", "minimum": 0}
_COUNT = {"type": "integer", "minimum": 1}
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}

# By the end of a value's path; the longest end that fits counts.
_LIMITS: dict[str, Schema] = {
    "replicas": _WHOLE,
    "valkey.replicas": _ONE,
    "nats.replicas": _ONE,
    "minReplicas": _COUNT,
    "maxReplicas": _COUNT,
    "cpuPercent": {"type": "integer", "minimum": 1, "maximum": 100},
    "gpuPercent": {"type": "integer", "minimum": 0, "maximum": 100},
    "queueMs": {"type": "number", "exclusiveMinimum": 0},
    "maxUnavailable": {"anyOf": [_COUNT, {"type": "string", "pattern": "^[1-9][0-9]?%$|^100%$"}]},
    "maxSurge": _WHOLE,
    "startupSeconds": {"type": "integer", "minimum": 2},
    "deadlineSeconds": _COUNT,
    "resources": _RESOURCES,
    "fetchResources": _RESOURCES,
    "model.version": _VERSION,
    "model.also": {"type": "array", "items": _VERSION | {"minLength": 1}},
    "canary.version": _VERSION,
    "canary.percent": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100, "multipleOf": 0.01},
    "canary.earlier": {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.01}},
    "canary.salt": {"type": "string", "minLength": 8, "maxLength": 64},
    "mirror.version": _VERSION,
    "mirror.percent": {"type": "number", "exclusiveMinimum": 0, "maximum": 100, "multipleOf": 0.01},
    "mirror.maxInFlight": {"type": "integer", "minimum": 1, "maximum": 64},
    "mirror.queueSize": {"type": "integer", "minimum": 1, "maximum": 10_000},
    "source.type": {"enum": ["pvc", "s3", "oci"]},
    "source.url": {"type": "string", "pattern": "^$|^s3://[^/]+(/.*)?$"},
    "source.endpoint": {"type": "string", "pattern": "^$|^https?://"},
    "pool.autoscaling.kind": {"enum": ["hpa", "keda"]},
    "autoscaling.prometheus": {"type": "string", "pattern": "^$|^https?://"},
    "gpu.resource": {"type": "string", "pattern": "^[a-z0-9.-]+/[A-Za-z0-9._-]+$"},
    "gpuResource": {"type": "string", "pattern": "^[a-z0-9.-]+/[A-Za-z0-9._-]+$"},
    "gpu.count": _WHOLE,
    "training.run": {"type": "string", "pattern": "^$|^[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?$"},
    "training.nodes": _COUNT,
    "training.gpusPerNode": _WHOLE,
    "training.backoffLimit": _WHOLE,
    "rollout.prometheus.address": {"type": "string", "pattern": "^$|^https?://"},
    "rollout.prometheus.labels": _STRINGS,
    "rollout.intervalSeconds": {"type": "number", "exclusiveMinimum": 0},
    "rollout.loadTimeoutSeconds": _COUNT,
    "update.schedule": {"type": "string", "pattern": r"^$|^(@\w+|(\S+\s+){4}\S+)$"},
    "fullnameOverride": {"type": "string", "pattern": "^$|^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$"},
    "digest": {"type": "string", "pattern": "^$|^sha256:[0-9a-f]{64}$"},
    "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "logLevel": {"enum": ["DEBUG", "INFO", "WARNING", "ERROR"]},
    "maxConnectionAgeSeconds": {"type": "integer", "minimum": 10},
    "drain.preStopSeconds": _WHOLE,
    "drain.seconds": {"type": "number", "minimum": 0},
    "candidate.index.engine": {"enum": ["faiss", "milvus"]},
    "candidate.index.milvus": {"type": "object"},
    "feature.store.engine": {"enum": ["lmdb", "valkey"]},
    "feature.store.lmdb.mapBytes": {"type": "integer", "minimum": 1024**2},
    "feedback.store.engine": {"enum": ["sqlite", "jetstream"]},
    "feature.store.valkey": {"type": "object"},
    "feedback.store.jetstream": {"type": "object"},
    "mesh.kind": {"enum": ["none", "istio", "linkerd"]},
    "priorityClasses.serving": {"type": "integer", "maximum": 1_000_000_000},
    "priorityClasses.batch": {"type": "integer", "maximum": 1_000_000_000},
    "nodeSelector": _STRINGS,
    "podLabels": _STRINGS,
    "podAnnotations": _STRINGS,
    "serviceAccountAnnotations": _STRINGS,
    "annotations": _STRINGS,
    "monitors.interval": {"type": "string", "pattern": "^[1-9][0-9]*(s|m)$"},
    "monitors.labels": _STRINGS,
    "rules.labels": _STRINGS,
    "rules.runbooks": {"type": "string", "minLength": 1},
    "dashboards.label": {"type": "string", "minLength": 1},
    "tls.secrets": _STRINGS,
    "tls.clients": {"type": "array", "items": {"type": "string"}},
    "tls.catalogueWriters": {"type": "array", "items": {"type": "string"}},
    "affinity": {"type": "object"},
    "otlpEndpoint": {"type": "string", "pattern": "^$|^[^:/]+:[0-9]+$"},
    "size": _QUANTITY,
    "spoolSize": _QUANTITY,
    "modelsSize": _QUANTITY,
    "sharedMemory": _QUANTITY,
}


def limit_of(path: tuple[str, ...]) -> Schema | None:
    """The limit that the longest end of `path` has."""
    return next((_LIMITS[end] for n in range(len(path)) if (end := ".".join(path[n:])) in _LIMITS), None)


def shape_of(value: Any, path: tuple[str, ...]) -> Schema:
    """The schema of a value of values.yaml: its limit, or its type."""
    if (limit := limit_of(path)) is not None:
        return limit
    if isinstance(value, dict):
        properties = {name: shape_of(part, (*path, name)) for name, part in value.items()}
        return {"type": "object", "additionalProperties": False, "properties": properties}
    types = {bool: "boolean", str: "string", int: "integer", float: "number", list: "array"}
    return {"type": types[type(value)]}


def settings_schema(kind: Any, definitions: Schema) -> Schema:
    """A group of settings as JSON schema; what it refers to goes into `definitions`."""
    schema = _bare(kind.model_json_schema(ref_template="#/$defs/{model}"))
    definitions.update(schema.pop("$defs", {}))
    return schema


def _bare(schema: Any, names: bool = False) -> Any:
    """Without titles, descriptions and defaults: README and config.py have them. `names`: keys are settings' names."""
    if isinstance(schema, list):
        return [_bare(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    drop = () if names else ("title", "description", "default")
    return {key: _bare(part, key in ("properties", "$defs")) for key, part in schema.items() if key not in drop}


def build() -> Schema:
    """The whole schema."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    definitions: Schema = {}
    root = shape_of(values, ())
    scenario = settings_schema(ScenarioHead, definitions)
    for section in SECTIONS:
        kind = _SECTIONS.get(section)
        scenario["properties"][section] = (
            settings_schema(kind, definitions) if kind is not None else {"type": ["object", "null"]}
        )
    scenario["properties"]["kubernetes"] = {"$ref": "#/$defs/Kubernetes"}
    definitions["Kubernetes"] = shape_of(values["scenarioDefaults"], ())
    definitions["Scenario"] = scenario
    root["properties"]["scenarioDefaults"] = {"$ref": "#/$defs/Kubernetes"}
    root["properties"]["scenarios"] = {
        "type": "object",
        "propertyNames": {"pattern": NAME_PATTERN},
        "additionalProperties": {"$ref": "#/$defs/Scenario"},
    }
    root["properties"]["global"] = {"type": "object"}
    # An engine in the pod is one process's own.
    root["allOf"] = [_one_pod("feature", "lmdb"), _one_pod("feedback", "sqlite")]
    root["allOf"].append(
        {
            "if": _path(["gateway", "enabled"], {"const": True}),
            "then": _path(["gateway", "parentRefs"], {"type": "array", "minItems": 1}),
        }
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart recmesh",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def _path(names: list[str], schema: Schema) -> Schema:
    for name in reversed(names):
        schema = {"properties": {name: schema}, "required": [name]}
    return schema


def _one_pod(service: str, engine: str) -> Schema:
    return {
        "if": _path([service, "store", "engine"], {"const": engine}),
        "then": {
            "properties": {
                service: {
                    "properties": {"replicas": _ONE, "autoscaling": {"properties": {"enabled": {"const": False}}}}
                }
            }
        },
    }


def main() -> None:
    """Write the file, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    text = json.dumps(build(), indent=1, sort_keys=False) + "\n"
    if not parser.parse_args().check:
        FILE.write_text(text)
    elif not FILE.is_file() or FILE.read_text() != text:
        sys.exit(f"error: {FILE.name} is not what its sources say; run: python tools/chart_schema.py")


if __name__ == "__main__":
    main()
