"""`recmesh run`: everything up, a click that changes the answer, simulated users who leave nothing behind."""

import subprocess
import sys
from pathlib import Path

from tests.e2e.tiny_state import make_tiny_state
from tests.e2e.up_process import needs_triton

pytestmark = needs_triton


def test_it_shows_the_loop_and_ends_with_simulated_users(tmp_path: Path) -> None:
    (file,) = make_tiny_state(tmp_path, ("video",))
    command = [sys.executable, "-m", "services.cli", "run", str(file), "--once", "--simulate", "3"]
    done = subprocess.run([*command, "--state", str(tmp_path)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = [
        "recommended to user",
        "clicked on",
        "CTR by model_version",
        "simulated: 20 users of video",
        "gRPC",
    ]
    places = [done.stdout.index(part) for part in parts]
    assert places == sorted(places)
    assert "counts, simulated" in done.stdout
    # Their ids are in no file of the stores any more.
    stores = [path for folder in ("feedback", "feature") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert stores
    assert [path for path in stores if b"simulated-" in path.read_bytes()] == []
