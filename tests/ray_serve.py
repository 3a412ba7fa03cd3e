"""segserve deployed on a real Ray cluster as `deploy/ray/serve.yaml` says, and a crowd of clients that ask it."""

from __future__ import annotations

import re
import secrets
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

    def begun(self) -> dict[str, int]:
        """By the id of each request that a replica began, the replica's process id."""
        said = re.findall(r"\[(\d+)\] DEBUG service.middleware: \S+ \S+ begins, request (\S+)", self.cluster.logs())
        return {request: int(replica) for replica, request in said}

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
    application["runtime_env"]["env_vars"] |= {"SEGSERVE_LOG_LEVEL": "debug"}  # says which requests have begun
    application["deployments"][0]["autoscaling_config"] |= {"min_replicas": replicas, "max_replicas": replicas}
    deployment = Deployment(cluster, f"http://127.0.0.1:{port}", config, folder / "serve.yaml")
    deployment.update(settings or {})
    deployment.await_replicas(replicas)
    yield deployment


@dataclass(frozen=True)
class Lost:
    """A request that was not done: when it was sent, by the monotonic clock, and what came instead.

    `broken`: no answer at all, its connection ended.
    """

    sent: float
    why: str
    broken: bool


@dataclass
class Crowd:
    """Clients that send a picture over and over: those that try again, and those that do not.

    `answered` counts the requests of those that do not, `lost` holds the others of theirs, by id. `given_up` is why
    those that try again gave up.
    """

    url: str
    picture: bytes
    answered: int = 0
    lost: dict[str, Lost] = field(default_factory=dict)
    retried: int = 0
    given_up: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def _once(self) -> None:
        url = f"{self.url}/segment?output=mask"
        while not self._stop.is_set():
            request = secrets.token_hex(8)
            headers, sent = PNG | {"X-Request-ID": request}, time.monotonic()
            try:
                # A connection of its own: one that is kept open to a node that dies is another matter.
                answer = httpx.post(url, content=self.picture, headers=headers, timeout=60)
                lost = Lost(sent, f"{answer.status_code} {answer.text[:200]}", broken=False)
                done = answer.status_code == 200
            except httpx.HTTPError as error:
                lost, done = Lost(sent, repr(error), broken=True), False
            with self._counting:
                if done:
                    self.answered += 1
                else:
                    self.lost[request] = lost

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

    def assert_lost_with(self, replica: int, begun: Mapping[str, int], gone: float) -> None:
        """That every lost request was under way when the replica ended at `gone`, and with no other replica.

        Its own log knows nearly all of them: it may have ended between taking a request and writing so. A node that
        dies takes its proxy along: where the connection ended, the request was there, whichever replica worked on it.
        """
        for request, lost in self.lost.items():
            assert lost.sent < gone, lost
            assert lost.broken or begun.get(request, replica) == replica, lost

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
