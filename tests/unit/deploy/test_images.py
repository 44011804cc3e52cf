"""The images: what the one of the services leaves out is not needed, and none runs as root."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "deploy" / "docker"

# What the chart runs in the image of the services.
PROGRAMS = [
    "services.ranking.__main__", "services.feature.__main__", "services.candidate.__main__",
    "services.feedback.__main__", "services.scoring.__main__", "deploy.models.__main__", "deploy.helm.__main__",
    "services.rollout.__main__",
]  # fmt: skip
# Of the extras cli, training and dev; the image installs `services` and `rollout` alone.
LEFT_OUT = [
    "torch", "transformers", "accelerate", "onnx", "onnxruntime", "peft", "scipy", "typer", "rich", "filelock",
    "psutil", "matplotlib", "optuna", "implicit", "obp", "jinja2", "hypothesis", "pytest", "trustme", "jsonschema",
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_services_image_needs_its_extra_alone(program):
    code = f"""
import importlib, sys
for name in {LEFT_OUT!r}:
    sys.modules[name] = None
importlib.import_module({program!r})
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["services", "training", "triton"])
def test_an_image_is_pinned_labelled_and_not_root(name):
    text = (DOCKER / f"{name}.Dockerfile").read_text()
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] == "10001:10001"
    assert "org.opencontainers.image.version" in text
    assert not re.search(r":latest\b", text)
    for source in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+) \S+$", text, re.MULTILINE):
        for part in source.split():
            assert (ROOT / part).exists(), part


def test_the_build_says_why_it_does_nothing(tmp_path):
    for program in ("bash", "sed", "dirname", "git"):
        (tmp_path / program).symlink_to(
            f"/usr/bin/{program}" if Path(f"/usr/bin/{program}").exists() else f"/bin/{program}"
        )
    environment = {"PATH": str(tmp_path), "HOME": os.environ.get("HOME", "/")}
    command = [str(tmp_path / "bash"), str(DOCKER / "build.sh")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "images not built: buildah is missing" in result.stdout
