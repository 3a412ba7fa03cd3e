"""segserve deployed on a real Ray cluster as `deploy/ray/serve.yaml` says, and a crowd of clients that ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from segserve import Client
from segserve.errors import SegserveClientError
from tests.ray_cluster import ROOT, Cluster
from tests.server import free_port

CONFIG = ROOT / "deploy" / "ray" / "serve.yaml"
READY_SECONDS = 180


@dataclass(frozen=True)
class Deployment:
    """The service at `url`; `config` is what was deployed last, `path` where it is written for `serve run`."""

    cluster: Cluster
    url: str
    config: dict[str, Any]
    path: Path

    def update(self, settings: Mapping[str, str]) -> None:
        """Deploy it again with other `SEGSERVE_` settings (without the prefix): replicas are replaced one by one."""
        variables = self.config["applications"][0]["runtime_env"]["env_vars"]
        variables |= {f"SEGSERVE_{name}": value for name, value in settings.items()}
        self.run()

    def run(self) -> None:
        """Deploy the configuration."""
        self.path.write_text(yaml.safe_dump(self.config))
        done = self.cluster.run("serve", "run", "--non-blocking", str(self.path))
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def await_replicas(self, count: int, seconds: float = READY_SECONDS) -> None:
        """Until so many nodes have a replica and the service is ready."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            there = sum(bool(node.replicas()) for node in self.cluster.nodes)
            if there == count and _status(f"{self.url}/health/ready") == 200:
                return
            time.sleep(0.5)
        raise AssertionError(f"{count} nodes with replicas were awaited:\n{self.cluster.logs()[-5000:]}")


@contextmanager
def deployed(
    cluster: Cluster, folder: Path, models: Path, replicas: int, settings: Mapping[str, str] | None = None
) -> Iterator[Deployment]:
    """What the project's own file says, with a port, so many replicas and these models; written to `folder`."""
    config = yaml.safe_load(CONFIG.read_text())
    port = free_port()
    config["http_options"] |= {"host": "127.0.0.1", "port": port}
    application = config["applications"][0]
    application["runtime_env"]["env_vars"] |= {"SEGSERVE_MODELS": str(models), "SEGSERVE_LOG_FORMAT": "text"}
    application["deployments"][0]["autoscaling_config"] |= {"min_replicas": replicas, "max_replicas": replicas}
    deployment = Deployment(cluster, f"http://127.0.0.1:{port}", config, folder / "serve.yaml")
    deployment.update(settings or {})
    deployment.await_replicas(replicas)
    yield deployment


@dataclass
class Crowd:
    """Clients that send a picture over and over: those that try again, and those that do not.

    `answered` and `lost` count the requests of those that do not; `given_up` is why those that try again gave up.
    """

    url: str
    picture: bytes
    answered: int = 0
    lost: list[str] = field(default_factory=list)
    retried: int = 0
    given_up: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def _once(self) -> None:
        while not self._stop.is_set():
            try:
                # A connection of its own: one that is kept open to a node that dies is another matter.
                status = httpx.post(f"{self.url}/segment?output=mask", content=self.picture, headers=PNG, timeout=60)
                outcome = "" if status.status_code == 200 else f"{status.status_code} {status.text[:200]}"
            except httpx.HTTPError as error:
                outcome = repr(error)
            with self._counting:
                if outcome:
                    self.lost.append(outcome)
                else:
                    self.answered += 1

    def _patiently(self) -> None:
        with Client(self.url, timeout=60, retries=10) as client:
            while not self._stop.is_set():
                try:
                    client.segment(self.picture).mask()
                except SegserveClientError as error:
                    with self._counting:
                        self.given_up.append(str(error))
                else:
                    with self._counting:
                        self.retried += 1

    @contextmanager
    def asking(self, once: int, patient: int) -> Iterator[None]:
        """While so many of each kind ask; they end with the requests that they have."""
        threads = [threading.Thread(target=self._once) for _ in range(once)]
        threads += [threading.Thread(target=self._patiently) for _ in range(patient)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def await_answers(self, count: int, seconds: float = 60) -> None:
        """Until each kind has had so many more."""
        answered, end = self.answered + count, time.monotonic() + seconds
        self.await_patient(count, seconds)
        while self.answered < answered:
            assert time.monotonic() < end, f"no answers: {self}"
            time.sleep(0.05)

    def await_patient(self, count: int, seconds: float = 60) -> None:
        """Until those that try again have had so many more."""
        retried, end = self.retried + count, time.monotonic() + seconds
        while self.retried < retried:
            assert time.monotonic() < end, f"no answers: {self}"
            time.sleep(0.05)


PNG = {"Content-Type": "image/png"}


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.HTTPError:
        return 0
