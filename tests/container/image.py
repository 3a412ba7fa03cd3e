"""The Dockerfile in, a built and unpacked image out, and containers of it; without a container engine.

buildah executes the Dockerfile on a base image that debootstrap makes; `sandbox.sh` runs what comes out as a hardened
container would. All state is in one folder, which is the caller's to remove.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.programs import absent, program
from tests.server import free_port

ROOT = Path(__file__).parent.parent.parent
SANDBOX = Path(__file__).parent / "sandbox.sh"
BASE = "localhost/debian:trixie-slim"
STOP_SECONDS = 30

PRIVATE = ("unshare", "--mount")
"""What a build mounts goes away with the build, however that ends."""


@dataclass(frozen=True)
class Done:
    """What a finished command printed, and its exit code."""

    code: int
    output: str


@dataclass(frozen=True)
class Container:
    """A running container: its process 1, as this machine numbers it, and the port that it listens on."""

    image: Image
    process: subprocess.Popen[bytes]
    pid: int
    settings: Mapping[str, str]
    log: Path

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.settings['SEGSERVE_PORT']}"

    def health(self) -> Done:
        """What the image's own health check says."""
        kind, *command = self.image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.image.run(*command, settings=self.settings)

    def stop(self) -> int:
        """Send the image's stop signal; the exit code."""
        os.kill(self.pid, signal.Signals[self.image.config["StopSignal"]])
        return self.process.wait(STOP_SECONDS)


@dataclass(frozen=True)
class Image:
    """An unpacked image: its root folder, and its configuration as `docker inspect` shows it."""

    root: Path
    config: dict[str, Any]

    def run(self, *command: str, settings: Mapping[str, str] | None = None) -> Done:
        """Run a command in a container of its own, to its end."""
        done = subprocess.run(
            self._sandboxed(*command),
            env=self._environment(settings or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout)

    @contextmanager
    def running(self, log: Path) -> Iterator[Container]:
        """A container that runs what the image says, on a free port; killed at the end if it still runs."""
        settings = {"SEGSERVE_PORT": str(free_port())}
        command = self._sandboxed(*self.config["Entrypoint"], *self.config["Cmd"])
        with log.open("w") as output:
            process = subprocess.Popen(
                command, env=self._environment(settings), stdout=output, stderr=subprocess.STDOUT
            )
        pid = _child(process)
        try:
            yield Container(self, process, pid, settings, log)
        finally:
            if process.poll() is None:
                os.kill(pid, signal.SIGKILL)
            process.wait()

    def _sandboxed(self, *command: str) -> list[str]:
        unshare = ["unshare", "--mount", "--pid", "--fork"]
        return [*unshare, str(SANDBOX), str(self.root), self.config["User"], *command]

    def _environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.config["Env"]) | dict(settings)


class Builder:
    """Builds images with buildah, all of whose state is in `folder`."""

    def __init__(self, folder: Path) -> None:
        """Make the base image. Skips the test where this machine cannot."""
        program("debootstrap", "debootstrap")
        self._buildah = program("buildah", "buildah")
        if os.geteuid() != 0:
            absent("building an image without a container engine needs root")
        storage = folder / "storage.conf"
        storage.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/images"\nrunroot = "{folder}/containers"\n'
        )
        self._environment = os.environ | {"CONTAINERS_STORAGE_CONF": str(storage), "BUILDAH_ISOLATION": "chroot"}
        mirror = os.environ.get("DEBIAN_MIRROR")
        self._run(*PRIVATE, str(ROOT / "deploy" / "rootfs.sh"), *([mirror] if mirror else []))

    def build(self, **arguments: str) -> Image:
        """Execute the Dockerfile with these build arguments."""
        done = self.attempt(**arguments)
        assert done.code == 0, done.output
        identity = done.output.split()[-1]
        container = self._run(self._buildah, "from", identity).strip()
        inspected = json.loads(self._run(self._buildah, "inspect", "--type", "image", identity))
        return Image(Path(self._run(self._buildah, "mount", container).strip()), inspected["Docker"]["config"])

    def attempt(self, **arguments: str) -> Done:
        """The same; how it ended."""
        command = [*PRIVATE, self._buildah, "build", "--format", "docker"]
        for name, value in {"BASE": BASE, **arguments}.items():
            command += ["--build-arg", f"{name}={value}"]
        # The authorities that this machine trusts; where a proxy inspects TLS, its own is among them.
        authorities = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
        if Path(authorities).is_file():
            command += ["--secret", f"id=ca,src={authorities}"]
        done = subprocess.run(
            [*command, str(ROOT)],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout)

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
        return done.stdout


def _child(parent: subprocess.Popen[bytes]) -> int:
    """The only child of a process, once it is there."""
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    while parent.poll() is None:
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.01)
    raise AssertionError(f"the container ended at once, with {parent.returncode}")
