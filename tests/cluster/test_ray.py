"""Ray with the shipped models, for longer: nodes and replicas die under load, settings change, 2,000 pictures pass."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.photos import photo
from segserve import Client
from tests.ray_cluster import ROOT, Cluster, cluster
from tests.ray_serve import Crowd, Deployment, deployed
from tests.redis_server import RedisServer, redis_server
from tests.server import running

MODELS = ROOT / "models"
PICTURE, LARGE = photo(480, 360), photo(1200, 900)
ONCE, PATIENT = 4, 4
COUNT = 2000


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    with cluster([1, 1]) as made:
        yield made


@pytest.fixture(scope="module")
def deployment(
    two_nodes: Cluster, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("ray")
    with deployed(two_nodes, folder, MODELS, 2, {"RESULTS": redis.url, "VARIANT": "fp32"}) as made:
        yield made


def test_the_masks_are_those_of_a_server_alone(deployment: Deployment, tmp_path: Path) -> None:
    with running(MODELS, tmp_path / "log", {"VARIANT": "fp32"}) as alone:
        one, other = (Client(url).segment(PICTURE).mask() for url in (alone.url, deployment.url))
    assert np.array_equal(one, other)


def test_a_result_is_known_to_every_replica(deployment: Deployment) -> None:
    answer = httpx.post(f"{deployment.url}/segment", content=PICTURE, headers={"Content-Type": "image/jpeg"}).json()
    assert answer["stored"] is True
    for _ in range(30):  # either replica answers
        assert httpx.get(deployment.url + answer["links"]["mask"]).status_code == 200


def test_new_settings_arrive_without_a_request_lost(deployment: Deployment) -> None:
    crowd = Crowd(deployment.url, PICTURE)
    with crowd.asking(ONCE, PATIENT):
        crowd.await_answers(10)
        deployment.update({"MAX_PIXELS": "1000000"})
        end = time.monotonic() + 240
        while time.monotonic() < end:
            seen = {status_of(LARGE, deployment.url) for _ in range(20)}
            if seen == {413}:
                break
            time.sleep(2)
        crowd.await_answers(10)
    assert seen == {413}
    assert (crowd.lost, crowd.given_up) == ({}, [])


def test_settings_that_cannot_serve_end_the_update_and_not_the_service(deployment: Deployment) -> None:
    deployment.await_replicas(2)
    crowd = Crowd(deployment.url, PICTURE)
    with crowd.asking(0, PATIENT):
        deployment.update({"VARIANT": "nosuch"})
        for _ in range(6):
            time.sleep(10)
            crowd.await_patient(10)
        deployment.update({"VARIANT": "fp32"})
        time.sleep(10)
        deployment.await_replicas(2)
        crowd.await_patient(10)
    assert crowd.given_up == []


def status_of(picture: bytes, url: str) -> int:
    """What whichever replica answers says."""
    headers = {"Content-Type": "image/jpeg"}
    return httpx.post(f"{url}/segment?output=mask", content=picture, headers=headers, timeout=60).status_code


def test_replicas_die_again_and_again(deployment: Deployment) -> None:
    for number in range(6):
        deployment.await_replicas(2)
        crowd = Crowd(deployment.url, PICTURE)
        with crowd.asking(ONCE, PATIENT):
            crowd.await_answers(20)
            replica = deployment.cluster.nodes[number % 2].replicas()[0]
            replica.kill()
            replica.wait(10)
            gone = time.monotonic()
            crowd.await_answers(20)
        assert_lost_with("replica", replica.pid, gone, crowd, deployment)


def test_a_node_dies(deployment: Deployment) -> None:
    deployment.await_replicas(2)
    crowd = Crowd(deployment.url, PICTURE)
    with crowd.asking(ONCE, PATIENT):
        crowd.await_answers(20)
        (replica,) = deployment.cluster.others[0].replicas()
        deployment.cluster.others[0].kill()
        gone = time.monotonic()
        time.sleep(30)  # until after the cluster has noticed
        crowd.await_answers(20)
    assert_lost_with("node", replica.pid, gone, crowd, deployment)


def assert_lost_with(what: str, replica: int, gone: float, crowd: Crowd, deployment: Deployment) -> None:
    begun = deployment.begun()
    known = sum(request in begun for request in crowd.lost)
    click.echo(
        f"\n{what} killed; answered {crowd.answered}, lost {len(crowd.lost)}, of which its log knows {known}; "
        f"retried {crowd.retried}"
    )
    assert crowd.given_up == []
    crowd.assert_lost_with(replica, begun, gone)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    drawn = [photo(480, 360, seed=seed) for seed in range(20)]
    for number in range(COUNT):
        (folder / f"{number:04d}.jpg").write_bytes(drawn[number % len(drawn)])
    return folder


def test_two_thousand_pictures_killed_and_gone_on_with(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["segment", str(photos), "-o", str(out), "--models", str(MODELS), "--ray", "--views", "mask", "--json"]
    with cluster([1, 1]) as two:
        start = [str(Path(sys.executable).with_name("segserve")), *command]
        process = subprocess.Popen(start, env=two.environment(), start_new_session=True, stderr=subprocess.DEVNULL)
        journal = out / ".segserve.jsonl"
        while not journal.exists() or journal.read_text().count('"done"') < COUNT // 3:
            assert process.poll() is None
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done = two.run("segserve", *command, seconds=500)
    report = json.loads(done.stdout.splitlines()[-1])
    click.echo(f"\n{report}")
    assert (done.returncode, report["failed"]) == (0, [])
    assert report["skipped"] >= COUNT // 3
    assert report["done"] + report["skipped"] == COUNT
    masks = sorted(out.glob("*.mask.png"))
    assert [mask.name for mask in masks] == [f"{number:04d}.mask.png" for number in range(COUNT)]
    assert {np.asarray(Image.open(mask)).shape for mask in masks} == {(360, 480)}
    assert len((out / "summary.csv").read_text().splitlines()) == COUNT + 1


def test_tables_of_masks_come_from_a_cluster_too(photos: Path, tmp_path: Path) -> None:
    some = sorted(photos.iterdir())[:200]
    command = ["segment", *map(str, some), "-o", str(tmp_path), "--models", str(MODELS), "--ray", "--format", "parquet"]
    with cluster([1, 1]) as two:
        done = two.run("segserve", *command)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "masks-00001.parquet").to_pylist()
    assert sorted(row["path"] for row in rows) == [str(path) for path in some]
    assert all(row["masks"] for row in rows)
