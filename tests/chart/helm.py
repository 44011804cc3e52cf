"""The real helm on the real chart."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "recmesh"
VALUES = Path(__file__).parent / "values"
SCENARIOS = ROOT / "deploy" / "scenarios"
HELM = Path(os.environ.get("RECMESH_HELM") or ROOT / ".helm" / "helm")

needs_helm = pytest.mark.skipif(not HELM.is_file(), reason="helm is missing; run `make setup`")

Document = dict[str, Any]

# Value set → the scenario files it is installed with.
SETS: dict[str, list[str]] = {
    "one-on-cpu": ["video"],
    "four-on-gpu": ["video", "music", "social", "ecommerce"],
    "external-engines": ["music"],
    "everything-off": [],
}


def helm(*arguments: str | Path, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run helm; its output is captured."""
    result = subprocess.run(
        [HELM, *arguments], capture_output=True, text=True, timeout=120, env=os.environ | variables, cwd=ROOT
    )
    if check and result.returncode:
        raise AssertionError(f"helm {' '.join(map(str, arguments))}:\n{result.stderr}")
    return result


def files_of(name: str) -> list[str | Path]:
    """The options of helm that name a value set's files."""
    files = [SCENARIOS / f"{scenario}.yaml" for scenario in SETS[name]]
    return [part for file in [*files, VALUES / f"{name}.yaml"] for part in ("-f", file)]


def read_documents(text: str) -> list[Document]:
    """All documents of a stream that are not empty. By libyaml: the loader in Python takes seconds."""
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def render(*options: str | Path) -> list[Document]:
    """All objects that `helm template` makes, hooks included, ordered by kind and name."""
    text = helm("template", "recmesh", CHART, "--namespace", "mesh", *options).stdout
    return sorted(read_documents(text), key=lambda document: (document["kind"], document["metadata"]["name"]))


def render_set(name: str) -> list[Document]:
    """The objects of a value set."""
    return render(*files_of(name))


def pods_of(documents: list[Document]) -> dict[str, Document]:
    """The pod specification of everything that runs pods, by "Kind/name"."""
    pods = {}
    for document in documents:
        spec = document.get("spec", {})
        match document["kind"]:
            case "Pod":
                pod = spec
            case "Deployment" | "StatefulSet" | "Job":
                pod = spec["template"]["spec"]
            case "CronJob":
                pod = spec["jobTemplate"]["spec"]["template"]["spec"]
            case _:
                continue
        pods[f"{document['kind']}/{document['metadata']['name']}"] = pod
    return pods
