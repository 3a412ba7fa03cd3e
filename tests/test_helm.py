"""The Helm chart, rendered by Helm's own engine: valid for Kubernetes, true to the service, strict with values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from helm_python import Chart

from service.app import create_app
from service.settings import Settings

DEPLOY = Path(__file__).parent.parent / "deploy"
VALUES = sorted((DEPLOY / "helm" / "values").glob("*.yaml"))
NAMES = [path.stem for path in VALUES]

OLDEST, NEWEST = "1.29", kubernetes_validate.latest_version()

SERVICE_MONITOR = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["selector", "endpoints"],
            "properties": {
                "selector": {"type": "object", "required": ["matchLabels"], "additionalProperties": False,
                             "properties": {"matchLabels": {"additionalProperties": {"type": "string"}}}},
                "endpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["port", "path"],
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string", "pattern": "^/"},
                            "interval": {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"},
                            "authorization": {
                                "type": "object",
                                "additionalProperties": False,
                                "properties": {"credentials": {"type": "object", "required": ["name", "key"]}},
                            },
                        },
                    },
                },
            },
        },
    },
}  # fmt: skip
"""A small schema of ours: what the chart uses of a ServiceMonitor, as the Prometheus operator documents it."""

IN_CLUSTER_TESTS = {"ServingRuntime", "InferenceService"}
"""Held against KServe's own models by tests/cluster/test_kserve.py, which needs an environment of its own."""


@dataclass(frozen=True)
class Rendered:
    """What a chart with some values makes."""

    objects: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, values: dict[str, Any]) -> Rendered:
        made = Chart.load(DEPLOY / "helm" / "segserve").render(values, name="demo", namespace="vision")
        texts = [text for path, text in sorted(made.items()) if path.endswith(".yaml")]
        return cls(tuple(item for text in texts for item in yaml.safe_load_all(text) if item))

    def one(self, kind: str, suffix: str = "segserve") -> dict[str, Any]:
        (found,) = [item for item in self.objects if item["kind"] == kind and item["metadata"]["name"].endswith(suffix)]
        return found

    def containers(self) -> Iterator[dict[str, Any]]:
        for item in self.objects:
            spec = item["spec"].get("template", {}).get("spec", item["spec"])
            yield from [*spec.get("containers", ()), *spec.get("initContainers", ())]

    def server(self) -> dict[str, Any]:
        (found,) = [one for one in self.containers() if one["name"] in ("segserve", "kserve-container")]
        return found


def rendered(name: str) -> Rendered:
    return Rendered.of(yaml.safe_load((DEPLOY / "helm" / "values" / f"{name}.yaml").read_text()) or {})


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", NAMES)
def test_everything_that_is_rendered_fits_a_schema(name: str, version: str) -> None:
    for item in rendered(name).objects:
        if item["kind"] in IN_CLUSTER_TESTS:
            continue
        if item["kind"] == "ServiceMonitor":
            jsonschema.validate(item, SERVICE_MONITOR)
        else:
            kubernetes_validate.validate(item, version, strict=True)  # a kind that it does not know is an error


def test_there_is_an_example_of_everything_that_can_be_chosen() -> None:
    assert {"default", "gpu", "redis", "autoscaled", "claim", "kserve"} <= set(NAMES)
    kinds = {item["kind"] for name in NAMES for item in rendered(name).objects}
    assert {"HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor", "Ingress"} <= kinds
    assert kinds >= IN_CLUSTER_TESTS


@pytest.mark.parametrize("name", NAMES)
def test_the_service_knows_every_setting_that_it_is_given(name: str) -> None:
    for variable in rendered(name).server()["env"]:
        assert variable["name"].removeprefix("SEGSERVE_").lower() in Settings.model_fields


def test_a_setting_of_the_user_takes_the_place_of_the_charts() -> None:
    values = {"gpu": {"enabled": True}, "settings": {"LOG_FORMAT": "text", "PROVIDERS": "cuda"}}
    given = [(one["name"], one.get("value")) for one in Rendered.of(values).server()["env"]]
    assert len(dict(given)) == len(given)
    assert {("SEGSERVE_LOG_FORMAT", "text"), ("SEGSERVE_PROVIDERS", "cuda")} <= set(given)


def test_results_leave_room_in_the_temporary_folder() -> None:
    found = rendered("default")
    values = {one["name"]: one.get("value") for one in found.server()["env"]}
    (folder,) = found.one("Deployment")["spec"]["template"]["spec"]["volumes"]
    assert (values["SEGSERVE_RESULTS_BYTES"], folder["emptyDir"]["sizeLimit"]) == ("512MiB", "1Gi")


@pytest.mark.parametrize(("url", "port"), [("redis://r", 6379), ("redis://u:p@r:7000/1", 7000), ("rediss://r:7", 7)])
def test_the_network_policy_lets_out_to_the_redis_that_is_named(url: str, port: int) -> None:
    egress = Rendered.of({"redis": {"url": url}}).one("NetworkPolicy")["spec"]["egress"]
    assert egress[1]["ports"] == [{"protocol": "TCP", "port": port}]


@pytest.mark.parametrize("name", NAMES)
def test_the_probes_ask_what_the_service_answers(name: str, tmp_path: Path) -> None:
    paths = set(create_app(Settings(models=tmp_path)).openapi()["paths"])
    server = rendered(name).server()
    for probe, question in (("startup", "startup"), ("liveness", "live"), ("readiness", "ready")):
        assert server[f"{probe}Probe"]["httpGet"] == {"path": f"/health/{question}", "port": "http"}
        assert f"/health/{question}" in paths


@pytest.mark.parametrize("name", NAMES)
def test_no_container_is_root_may_become_it_or_writes_to_its_root(name: str) -> None:
    for container in rendered(name).containers():
        confined = container["securityContext"]
        assert confined["runAsNonRoot"] is confined["readOnlyRootFilesystem"] is True
        assert confined["allowPrivilegeEscalation"] is False
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_a_pod_has_time_to_drain() -> None:
    pod = Rendered.of({"drain": {"delaySeconds": 7, "seconds": 40}}).one("Deployment")["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    assert server["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "7"]
    assert {"name": "SEGSERVE_DRAIN_SECONDS", "value": "40"} in server["env"]
    assert pod["terminationGracePeriodSeconds"] > 7 + 40


def test_replicas_are_left_to_the_autoscaler_where_there_is_one() -> None:
    scaled = rendered("autoscaled")
    assert "replicas" not in scaled.one("Deployment")["spec"]
    kinds = [metric["type"] for metric in scaled.one("HorizontalPodAutoscaler")["spec"]["metrics"]]
    assert kinds == ["Resource", "Pods"]
    assert rendered("default").one("Deployment")["spec"]["replicas"] == 1


def test_the_queue_that_is_scaled_by_is_a_metric_of_the_service() -> None:
    metrics = rendered("autoscaled").one("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metrics[1]["pods"]["metric"]["name"] in (DEPLOY / "grafana" / "segserve.json").read_text()


def test_results_are_shared_by_redis_however_it_is_named() -> None:
    def results(redis: dict[str, Any]) -> dict[str, Any]:
        return next(one for one in Rendered.of({"redis": redis}).server()["env"] if one["name"] == "SEGSERVE_RESULTS")

    assert results({"enabled": True})["value"] == "redis://demo-segserve-redis"
    assert (
        Rendered.of({"redis": {"enabled": True}}).one("Service", "redis")["metadata"]["name"] == "demo-segserve-redis"
    )
    assert results({"url": "redis://elsewhere"})["value"] == "redis://elsewhere"
    assert results({"secret": "s"})["valueFrom"]["secretKeyRef"] == {"name": "s", "key": "url"}


@pytest.mark.parametrize(
    ("values", "several"),
    [
        ({}, None),
        ({"replicas": 3}, "true"),
        ({"autoscaling": {"enabled": True}}, "true"),
        ({"replicas": 3, "settings": {"REPLICATED": "false"}}, "false"),
    ],
)
def test_pods_that_may_be_several_know_it(values: dict[str, Any], several: str | None) -> None:
    given = {one["name"]: one.get("value") for one in Rendered.of(values).server()["env"]}
    assert given.get("SEGSERVE_REPLICATED") == several


@pytest.mark.parametrize(("memory", "most"), [("512Mi", "384mb"), ("2Gi", "1536mb")])
def test_redis_leaves_itself_a_quarter_of_its_memory(memory: str, most: str) -> None:
    redis = Rendered.of({"redis": {"enabled": True, "memory": memory}}).one("Deployment", "redis")
    assert redis["spec"]["template"]["spec"]["containers"][0]["args"][-1] == most


def test_keys_come_from_files_of_a_secret() -> None:
    server = Rendered.of({"keys": {"secret": "segserve-keys", "admin": True}}).server()
    values = {one["name"]: one.get("value") for one in server["env"]}
    for kind in ("api", "admin"):
        assert values[f"SEGSERVE_{kind.upper()}_KEYS"] == f"@/run/secrets/segserve/{kind}_keys"
    assert {"name": "keys", "mountPath": "/run/secrets/segserve", "readOnly": True} in server["volumeMounts"]


@pytest.mark.parametrize(("name", "kind"), [("claim", "persistentVolumeClaim"), ("copied", "emptyDir")])
def test_models_come_from_where_the_values_say(name: str, kind: str) -> None:
    pod = rendered(name).one("Deployment")["spec"]["template"]["spec"]
    assert kind in next(volume for volume in pod["volumes"] if volume["name"] == "models")
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in pod["containers"][0]["volumeMounts"]
    assert ("initContainers" in pod) == (name == "copied")


def test_a_gpu_is_asked_for_and_used() -> None:
    server = rendered("gpu").server()
    assert server["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"name": "SEGSERVE_PROVIDERS", "value": "cuda,cpu"} in server["env"]


def test_kserve_takes_the_place_of_deployment_and_service() -> None:
    found = rendered("kserve")
    assert {item["kind"] for item in found.objects} == {"ServingRuntime", "InferenceService"}
    predictor = found.one("InferenceService")["spec"]["predictor"]
    assert predictor["model"]["runtime"] == found.one("ServingRuntime")["metadata"]["name"]
    assert {"name": "SEGSERVE_MODELS", "value": "/mnt/models"} in found.server()["env"]
    chosen = {"nodeSelector": {"disk": "fast"}, "image": {"pullSecrets": [{"name": "registry"}]}}
    values = chosen | {"kserve": {"enabled": True, "storageUri": "pvc://a/b"}}
    predictor = Rendered.of(values).one("InferenceService")["spec"]["predictor"]
    assert predictor["nodeSelector"] == {"disk": "fast"}
    assert predictor["imagePullSecrets"] == [{"name": "registry"}]


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"replica": 3}, "additional properties 'replica' not allowed"),
        ({"replicas": "three"}, "/replicas"),
        ({"models": {"from": "claim"}}, "/models/claim"),
        ({"models": {"from": "init", "init": {"image": "x"}}}, "/models/init/command"),
        ({"models": {"from": "bucket"}}, "/models/from"),
        ({"settings": {"PORT": "9000"}}, "PORT"),
        ({"settings": {"DRAIN_DELAY": "30"}}, "DRAIN_DELAY"),
        ({"settings": {"TIMEOUT": 10}}, "/settings/TIMEOUT"),
        ({"redis": {"url": "http://x"}}, "/redis/url"),
        ({"keys": {"admin": True}}, "/keys/secret"),
        ({"ingress": {"enabled": True}}, "/ingress/host"),
        ({"kserve": {"enabled": True}}, "/kserve/storageUri"),
        ({"resources": {"limits": {"memory": None}}}, "memory"),
        ({"service": {"port": 0}}, "/service/port"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(values: dict[str, Any], place: str) -> None:
    with pytest.raises(helm_python.HelmValuesError) as refused:
        Rendered.of(values)
    assert place in str(refused.value)


@pytest.mark.parametrize(
    "values",
    [
        {"autoscaling": {"enabled": True, "min": 12}},
        {"kserve": {"enabled": True, "storageUri": "pvc://a/b", "minReplicas": 12}},
    ],
)
def test_fewer_replicas_at_most_than_at_least_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmError, match=r"12 .* at least"):
        Rendered.of(values)


@pytest.mark.parametrize(
    ("url", "port"),
    [("redis://cache", 6379), ("redis://cache:6380/1", 6380), ("rediss://cache:6381?ssl_cert_reqs=none", 6381)],
)
def test_the_redis_that_is_named_may_be_reached(url: str, port: int) -> None:
    policy = Rendered.of({"redis": {"url": url}, "networkPolicy": {"enabled": True}}).one("NetworkPolicy")
    assert {"protocol": "TCP", "port": port} in [one for rule in policy["spec"]["egress"] for one in rule["ports"]]


def test_the_chart_is_of_this_version() -> None:
    chart = Chart.load(DEPLOY / "helm" / "segserve")
    assert chart.metadata["appVersion"] == create_app(Settings(models=Path())).version
    assert helm_python.lint(DEPLOY / "helm" / "segserve")["errors"] == []
