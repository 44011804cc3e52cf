"""podman, where it can run containers: as root, also inside of a container or a small virtual machine."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import yaml

INFRA = "localhost/recmesh-test-pause:1"
# A hybrid hierarchy of control groups is more than crun takes: the new one is hidden from podman, and from nobody else.
_WITHOUT_UNIFIED = """
awk '$3 == "cgroup2" {print $2}' /proc/mounts | while read -r mount; do
    mountpoint -q /sys/fs/cgroup/memory && umount -l "$mount"
done
exec podman --storage-driver=vfs "$@"
"""


class PodmanError(Exception):
    """What podman or buildah said when it failed."""


class Podman:
    """Plays pods from `folder`. PodmanError when it cannot run containers here."""

    def __init__(self, folder: Path) -> None:
        missing = [name for name in ("podman", "buildah", "crun", "unshare") if shutil.which(name) is None]
        if missing:
            raise PodmanError(f"{', '.join(missing)} missing (Debian: apt-get install podman buildah crun)")
        if os.getuid() != 0:
            raise PodmanError("containers run here as root only")
        self._folder = folder
        config = folder / "containers.conf"
        # Limits that a process without all rights may not raise, and a pause image that no registry has to give.
        config.write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
            f'[engine]\ninfra_image = "{INFRA}"\nruntime = "crun"\n'
            'cgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )
        self._variables = os.environ | {"CONTAINERS_CONF": str(config)}
        self._make_pause_image()
        self("run", "--rm", "--pull=never", "--network=host", INFRA, "/bin/sleep", "0")

    def __call__(self, *arguments: str | Path) -> str:
        """Run podman; returns what it prints."""
        return self._run("unshare", "--mount", "bash", "-c", _WITHOUT_UNIFIED, "podman", *arguments)

    def has_image(self, name: str) -> bool:
        """Whether the image was built here."""
        try:
            self("image", "exists", name)
        except PodmanError:
            return False
        return True

    def play(self, name: str, documents: list[dict]) -> Path:
        """`podman kube play`; returns the file, for `down`."""
        file = self._folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump_all(documents))
        try:
            self("kube", "play", file)
        except PodmanError:
            # What was made before it failed.
            with contextlib.suppress(PodmanError):
                self.down(file)
            raise
        return file

    def down(self, file: Path) -> None:
        """End what was played from a file and remove it."""
        self("kube", "down", file)

    def _make_pause_image(self) -> None:
        """`sleep` with the libraries that it needs, and nothing else."""
        sleep = shutil.which("sleep")
        assert sleep is not None
        root = self._folder / "pause"
        libraries = [word for word in self._run("ldd", sleep).split() if word.startswith("/")]
        for source, place in [(sleep, "/bin/sleep"), *((library, library) for library in libraries)]:
            target = root / place.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
        buildah = ("buildah", "--storage-driver=vfs")
        container = self._run(*buildah, "from", "scratch").strip()
        self._run(*buildah, "copy", "--quiet", container, root, "/")
        self._run(*buildah, "config", "--cmd", '["/bin/sleep", "infinity"]', container)
        self._run(*buildah, "commit", "--quiet", "--rm", container, INFRA)

    def _run(self, *command: str | Path) -> str:
        done = subprocess.run(command, capture_output=True, text=True, env=self._variables, timeout=300)
        if done.returncode:
            raise PodmanError(f"{' '.join(map(str, command[-4:]))}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout
