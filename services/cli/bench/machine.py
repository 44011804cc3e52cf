"""What machine a measurement was made on."""

import platform
from pathlib import Path

import psutil


def describe_machine() -> str:
    """Processor and cores."""
    cpu_info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in cpu_info.splitlines() if line.startswith("model name")]
    return f"{models[0] if models else platform.processor() or platform.machine()}, {psutil.cpu_count()} cores"
