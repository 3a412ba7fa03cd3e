"""The service on Ray: a replica on each of two nodes, of which one takes over when the other dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from service.bundle import open_bundle
from service.errors import BundleError
from service.golden import Golden
from service.lifecycle import Lifecycle
from service.manifest import GOLDEN
from tests.bundles import GREEN, RED, ROLLED, Net, bands, encoded, write_bundle
from tests.ray_cluster import Cluster, cluster
from tests.ray_serve import PNG, Crowd, Deployment, deployed

PICTURE = encoded(bands(RED, GREEN))
SLOW = Net(turns=20_000)
"""Takes some tens of milliseconds, so that a replica that dies has requests inside."""

ONCE, PATIENT = 3, 2
"""Clients that lose a request when its server dies, and those that try again."""


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    with cluster([1, 1]) as made:
        yield made


@pytest.fixture(scope="module")
def deployment(two_nodes: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("ray")
    write_bundle(folder / "models", nets=SLOW)
    with deployed(two_nodes, folder, folder / "models", 2, {"ADMIN_KEYS": f"@{admin_key(folder)}"}) as made:
        yield made


def admin_key(folder: Path) -> Path:
    """A file with the digest of the key `secret`."""
    path = folder / "admin"
    path.write_text("sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n")
    return path


@pytest.mark.long
def test_requests_reach_both_nodes(deployment: Deployment) -> None:
    crowd, end = Crowd(deployment.url, PICTURE), time.monotonic() + 60
    nodes = [{replica.pid for replica in node.replicas()} for node in deployment.cluster.nodes]
    with crowd.asking(ONCE, PATIENT):
        while not all(node & set(deployment.begun().values()) for node in nodes):
            assert time.monotonic() < end, f"some node was never asked: {nodes}"
            crowd.await_answers(5)
    assert (crowd.lost, crowd.given_up) == ({}, [])


@pytest.mark.long
def test_what_would_hold_for_one_replica_alone_is_refused(deployment: Deployment) -> None:
    answer = httpx.post(f"{deployment.url}/segment", content=PICTURE, headers=PNG).json()
    assert (answer["id"], answer["stored"], answer["links"]) == (None, "off", {})
    for action in ("load", "unload"):
        url = f"{deployment.url}/v2/repository/models/rgb/{action}"
        refused = httpx.post(url, headers={"Authorization": "Bearer secret"})
        assert refused.status_code == 409
        assert "the model folder that they share" in refused.json()["error"]


@pytest.mark.long
def test_a_replica_that_dies_loses_no_more_than_it_had_in_hand(deployment: Deployment) -> None:
    crowd = Crowd(deployment.url, PICTURE)
    with crowd.asking(ONCE, PATIENT):
        crowd.await_answers(5)
        (replica,) = deployment.cluster.others[0].replicas()
        replica.kill()
        replica.wait(10)
        gone = time.monotonic()
        crowd.await_answers(20)
    assert crowd.given_up == []
    crowd.assert_lost_with(replica.pid, deployment.begun(), gone)
    deployment.await_replicas(2)


@pytest.mark.long
def test_a_node_that_dies_loses_no_more_than_it_had_in_hand(deployment: Deployment) -> None:
    crowd = Crowd(deployment.url, PICTURE)
    with crowd.asking(ONCE, PATIENT):
        crowd.await_answers(5)
        (replica,) = deployment.cluster.others[0].replicas()
        deployment.cluster.others[0].kill()
        gone = time.monotonic()
        crowd.await_answers(20)
    assert crowd.given_up == []
    crowd.assert_lost_with(replica.pid, deployment.begun(), gone)


def test_a_model_that_no_longer_sees_what_it_must_is_found(tmp_path: Path) -> None:
    model = open_bundle(write_bundle(tmp_path), ("cpu",))
    other = write_bundle(tmp_path, version=2, nets=Net(ROLLED))
    (other / GOLDEN).replace(model.folder / GOLDEN)
    model.prove()  # what lies there now is another bundle's
    model = replace(model, golden=Golden.load(model.folder / GOLDEN))
    with pytest.raises(BundleError, match="agrees with the golden mask at 40"):
        model.prove()


def test_a_replica_takes_requests_once_its_models_are_loaded() -> None:
    async def scenario() -> None:
        life, load = Lifecycle(at_once=False, once_loaded=True), asyncio.Event()
        loading = asyncio.create_task(load.wait())
        admission = asyncio.create_task(life.admission(loading))
        await asyncio.sleep(0.01)
        assert not admission.done()
        load.set()
        await admission

    asyncio.run(scenario())
