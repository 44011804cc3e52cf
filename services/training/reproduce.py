"""A bundle made again from its manifest: the same settings on the same data."""

import platform
from importlib.metadata import version

from services.runtime.bundle import Manifest
from services.runtime.errors import SetupError
from services.training.distributed import device, process_count
from services.training.pipeline import Adaptation

_LIBRARIES = ("faiss-cpu", "numpy", "onnx", "onnxruntime", "peft", "scipy", "tokenizers", "torch", "transformers")


def environment() -> dict[str, str]:
    """What a result depends on beside settings and data."""
    versions = {library: version(library) for library in _LIBRARIES}
    return versions | {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": device().type,
        "processes": str(process_count()),
    }


def check_inputs(adaptation: Adaptation, manifest: Manifest) -> None:
    """SetupError unless `adaptation` is of the scenario, the data and the tasks that the manifest tells of."""
    scenario = adaptation.scenario
    where = f"manifest of {manifest.model_version}"
    if manifest.scenario != scenario.name:
        raise SetupError(f"{where}: it is of scenario {manifest.scenario}, not {scenario.name}")
    if manifest.data_fingerprint != adaptation.dataset.fingerprint:
        raise SetupError(
            f"{where}: it was made from other tables (fingerprint {manifest.data_fingerprint[:8]}, here "
            f"{adaptation.dataset.fingerprint[:8]}); restore them, or adapt without --from-manifest"
        )
    head = scenario.head.model_dump(mode="json")
    differing = sorted(name for name, value in manifest.method["head"].items() if head.get(name) != value)
    if differing:
        raise SetupError(f"{where}: {scenario.where}: {', '.join(differing)} differ from when it was made")


def differing_versions(manifest: Manifest) -> dict[str, tuple[str, str]]:
    """Where the environment is another: name → (then, now)."""
    now = environment()
    return {name: (then, now.get(name, "none")) for name, then in manifest.environment.items() if then != now.get(name)}


def largest_difference(manifest: Manifest, again: Manifest) -> float:
    """Of any figure that both manifests hold."""
    figures = {(row.method, row.slice, row.metric): row.value for row in manifest.metrics}
    keys = [(row.method, row.slice, row.metric, row.value) for row in again.metrics]
    return max(abs(figures[key] - value) for *names, value in keys if (key := tuple(names)) in figures)
