"""Compose, Kubernetes and systemd files against the program: no name in them is stale."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import falcon.inspect
import pytest

from llmrs.config import BY_NAME, OPTIONS, Config, load
from llmrs.server.app import create_app
from llmrs.server.auth import OPEN_PATHS
from tests.deploy.files import DEPLOY, dockerfile, documents, manifest, seconds, unit, words
from tests.engines import FakeBackend
from tests.processes import ROOT, tool

VARIABLES = {option.env for option in OPTIONS} | {"LLMRS_CONFIG", "HF_HOME"}
COMPOSE: dict[str, Any] = documents("docker-compose.yml")[0]
POD: dict[str, Any] = manifest("Deployment")["spec"]["template"]["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]
PROBES = ["startupProbe", "readinessProbe", "livenessProbe"]


@pytest.fixture(scope="module")
def paths() -> set[str]:
    """Of the routes that answer GET."""
    app = create_app([FakeBackend()], load(environ={}, path="/dev/null"))
    try:
        return {route.path for route in falcon.inspect.inspect_routes(app._falcon)}
    finally:
        app.close()


@pytest.fixture(scope="module")
def pod_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The configuration of the pods, with a file of keys where they have theirs."""
    keys = tmp_path_factory.mktemp("secrets") / "keys"
    keys.write_text("key\n")
    return load({"api_key_file": str(keys)}, environ={}, path=str(DEPLOY / "kubernetes/config.toml"))


# -- Dockerfile -----------------------------------------------------------------------------------


def test_the_image_is_started_without_a_shell() -> None:
    last = dockerfile()
    assert words(last["ENTRYPOINT"][0]) == ["llmrs"]
    assert words(last["CMD"][0]) == ["serve"]
    assert last["EXPOSE"] == [str(BY_NAME["port"].default)]
    assert "CMD [" in last["HEALTHCHECK"][0]


def test_the_image_sets_only_what_the_program_knows() -> None:
    names = {name for line in dockerfile()["ENV"] for name in re.findall(r"(\w+)=", line)}
    assert {name for name in names if name not in VARIABLES} == {
        "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "TMPDIR",
    }  # fmt: skip


def test_what_is_copied_exists_and_reaches_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*", "deny by default"
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists()
            assert f"!{name}" in ignored


# -- Kubernetes -----------------------------------------------------------------------------------


def test_the_kustomization_names_what_there_is() -> None:
    kustomization = documents("kubernetes/kustomization.yaml")[0]
    folder = DEPLOY / "kubernetes"
    listed = {*kustomization["resources"], "kustomization.yaml"}
    assert listed == {path.name for path in folder.glob("*.yaml")}
    generators = {**named(kustomization["configMapGenerator"]), **named(kustomization["secretGenerator"])}
    assert generators == {"llmrs": ["config.toml"], "llmrs-keys": ["keys"]}
    assert (folder / "config.toml").exists()
    assert not (folder / "keys").exists()
    assert "/deploy/kubernetes/keys" in (ROOT / ".gitignore").read_text().splitlines()
    sources = [volume.get("configMap", {}).get("name") for volume in POD["volumes"]]
    sources += [volume.get("secret", {}).get("secretName") for volume in POD["volumes"]]
    assert set(filter(None, sources)) == set(generators)
    assert [image["name"] for image in kustomization["images"]] == [CONTAINER["image"]]


def named(generators: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {generator["name"]: generator["files"] for generator in generators}


@pytest.mark.parametrize("probe", PROBES)
def test_probes_ask_routes_that_exist_and_need_no_key(probe: str, paths: set[str]) -> None:
    asked = CONTAINER[probe]["httpGet"]
    assert asked["path"] in paths & OPEN_PATHS
    assert asked["path"] == ("/readyz" if probe == "readinessProbe" else "/livez")
    assert asked["port"] in {port["name"] for port in CONTAINER["ports"]}


def test_ports_lead_to_the_program() -> None:
    (port,) = CONTAINER["ports"]
    assert port["containerPort"] == BY_NAME["port"].default
    assert manifest("Service")["spec"]["ports"][0]["targetPort"] == port["name"]
    annotations = manifest("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


def test_everything_selects_the_pods() -> None:
    deployment = manifest("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert manifest("Service")["spec"]["selector"] == labels
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert POD["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"] == labels
    scaler = manifest("HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"], "kind": "Deployment", "name": deployment["metadata"]["name"],
    }  # fmt: skip
    assert manifest("PodDisruptionBudget")["spec"]["minAvailable"] < scaler["minReplicas"]
    assert "cpu" in CONTAINER["resources"]["requests"], "what the autoscaler's percentage is of"


def test_pods_have_the_images_user_and_no_rights() -> None:
    user, group = map(int, dockerfile()["USER"][0].split(":"))
    pod, own = POD["securityContext"], CONTAINER["securityContext"]
    assert (pod["runAsUser"], pod["runAsGroup"], pod["fsGroup"]) == (user, group, group)
    assert pod["runAsNonRoot"]
    assert own == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


def test_volumes_lie_where_the_program_looks(pod_config: Config) -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in POD["volumes"]}
    assert mounts["config"] == dockerfile()["WORKDIR"][0]
    text = (DEPLOY / "kubernetes/config.toml").read_text()
    assert f'api_key_file = "{mounts["keys"]}/keys"' in text
    assert pod_config.log_format == "json"


def test_pods_have_time_to_finish(pod_config: Config) -> None:
    pause = float(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod_config.graceful_timeout > pod_config.request_timeout
    assert POD["terminationGracePeriodSeconds"] > pause + pod_config.graceful_timeout


def test_no_variable_is_unknown() -> None:
    env = {entry["name"] for entry in CONTAINER.get("env", [])}
    for service in COMPOSE["services"].values():
        env |= set(service.get("environment", {}))
    text = (DEPLOY / "docker-compose.yml").read_text()
    env |= set(re.findall(r"^ +# ([A-Z_]+):", text, re.MULTILINE))  # given as an example
    env |= {line.partition("=")[0] for line in unit()["Environment"]}
    assert {"LOG_FORMAT", "API_KEY_FILE", "HF_HOME"} <= env <= VARIABLES


# -- compose --------------------------------------------------------------------------------------


def test_compose_runs_the_instances_that_nginx_knows() -> None:
    services = COMPOSE["services"]
    conf = (DEPLOY / "nginx.conf").read_text()
    upstreams = re.findall(r"^\s*server ([\w-]+):(\d+) ", conf, re.MULTILINE)
    assert (
        {name for name, _ in upstreams} == set(services) - {"nginx"} == set(services["nginx"]["depends_on"])
    )
    assert {int(port) for _, port in upstreams} == {BY_NAME["port"].default}
    listen = re.search(r"listen (\d+);", conf)
    assert listen is not None
    assert services["nginx"]["ports"] == [f"3000:{listen[1]}"]
    conditions = [each["condition"] for each in services["nginx"]["depends_on"].values()]
    assert conditions == ["service_healthy"] * len(upstreams)
    assert "HEALTHCHECK" in dockerfile()


def test_compose_mounts_what_there_is_and_gives_time_to_finish() -> None:
    for name, service in COMPOSE["services"].items():
        for volume in service["volumes"]:
            outside, inside, mode = volume.split(":")
            assert (DEPLOY / outside).resolve().exists()
            assert mode == "ro"
            if name != "nginx":
                assert inside == f"{dockerfile()['WORKDIR'][0]}/config.toml"
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        if name != "nginx":
            assert seconds(service["stop_grace_period"]) > BY_NAME["graceful_timeout"].default
            assert (DEPLOY / service["build"]["context"] / "Dockerfile").exists()


# -- systemd --------------------------------------------------------------------------------------


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    text = (DEPLOY / "llmrs.service").read_text()
    program = "/opt/llmrs/bin/llmrs"
    assert text.count(f"ExecStart={program} serve\n") == 1
    copy = tmp_path / "llmrs.service"
    copy.write_text(text.replace(program, str(Path(sys.executable).with_name("llmrs"))))
    for command in (["verify", "--man=no"], ["security", "--offline=true", "--threshold=20"]):
        done = subprocess.run([analyze, *command, str(copy)], capture_output=True, text=True, timeout=60)
        said = [line for line in (done.stdout + done.stderr).splitlines() if "llmrs.service" in line]
        assert done.returncode == 0, said
        assert not any("Unknown" in line for line in said)


def test_the_unit_gives_time_to_finish_and_looks_where_it_says() -> None:
    settings = {name: values[-1] for name, values in unit().items()}
    assert float(settings["TimeoutStopSec"]) > BY_NAME["graceful_timeout"].default
    assert (settings["KillSignal"], settings["KillMode"]) == ("SIGTERM", "mixed")
    assert settings["WorkingDirectory"] == f"/etc/{settings['ConfigurationDirectory']}"
    assert f"HF_HOME=/var/lib/{settings['StateDirectory']}" in unit()["Environment"]
    assert settings["DynamicUser"] == "yes"


def test_systemd_waits_until_the_service_says_that_it_is_ready() -> None:
    """tests/integration/test_systemd.py has what it says, and when."""
    assert unit()["Type"] == ["notify"]
    assert "NotifyAccess" not in unit(), "the master alone may speak"
