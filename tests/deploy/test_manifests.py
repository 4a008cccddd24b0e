"""The deploy files are well formed and keep their promises, as far as that shows without their platforms."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import timedelta

import kubernetes_validate
import pytest
import yaml
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.settings import Settings

from ojala.deploy import register
from tests.deploy.processes import BIN, ROOT

DEPLOY = ROOT / "deploy"
SECRET_NAME = re.compile("PASSWORD|AUTH|SECRET|TOKEN|KEY")


def services():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def resources():
    """All Kubernetes resources."""
    listed = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    for name in listed:
        for document in yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()):
            yield from document["items"] if document["kind"] == "List" else [document]


def pods():
    """Name and pod of everything that runs on Kubernetes."""
    for resource in resources():
        if resource["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield resource["metadata"]["name"], resource["spec"]["template"]["spec"]


def test_the_compose_file_follows_its_specification():
    check = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"]
    checked = subprocess.run(check, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_docker_reads_the_compose_file():
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], check=False).returncode
    ):
        pytest.skip("docker compose is not installed")
    command = [
        "docker",
        "compose",
        "--file",
        DEPLOY / "compose.yaml",
        "--profile",
        "gpu",
        "config",
        "--quiet",
    ]
    read = subprocess.run(
        command, env=os.environ | {"OJALA_DATA": "/data"}, capture_output=True, text=True, check=False
    )
    assert read.returncode == 0, read.stderr


def test_the_compose_file_gives_secrets_as_files_only():
    for name, service in services().items():
        for variable, value in service.get("environment", {}).items():
            assert not SECRET_NAME.search(variable) or value.startswith("/run/secrets/"), (
                f"{name}: {variable}"
            )


def test_services_of_ours_can_do_little_on_their_machine():
    ours = {name: s for name, s in services().items() if s["image"].startswith("ojala:")}
    assert set(ours) >= {"prefect", "prefect-worker", "scheduler", "worker", "worker-gpu"}
    for service in ours.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert ours["worker-gpu"]["profiles"] == ["gpu"]


def test_each_dask_process_has_the_certificate_of_its_own_role_alone():
    roles = {"scheduler": "scheduler", "worker": "worker", "worker-gpu": "worker", "prefect-worker": "client"}
    for name, role in roles.items():
        found = {s["source"] for s in services()[name]["secrets"] if "/dask/" in s["target"]}
        assert found == {"ca", role}


def test_every_server_of_the_compose_file_has_a_health_check():
    for name, service in services().items():
        assert "healthcheck" in service or name == "register"


@pytest.mark.parametrize("resource", list(resources()), ids=lambda r: f"{r['kind']}-{r['metadata']['name']}")
def test_kubernetes_resources_follow_their_schema(resource):
    kubernetes_validate.validate(resource, "1.31", strict=True)


def test_kubernetes_schemas_notice_a_wrong_name():
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"port": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)


def test_kustomize_renders_the_manifests_with_our_images():
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    rendered = subprocess.run(
        ["kubectl", "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, check=False
    )
    assert rendered.returncode == 0, rendered.stderr
    images = set(re.findall(r"image: (\S+)", rendered.stdout))
    assert images == {"ojala:cpu", "ojala:gpu", "postgres:17-bookworm"}
    assert rendered.stdout.count("\nkind: ") == len(list(resources()))


def test_pods_run_without_rights_within_bounds():
    assert len(list(pods())) == 7
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name
            assert "livenessProbe" in container or name == "register", name


def test_pods_get_secrets_by_reference_only():
    for name, pod in pods():
        for container in pod["containers"]:
            for variable in container["env"]:
                assert not SECRET_NAME.search(variable["name"]) or "secretKeyRef" in variable["valueFrom"], (
                    name
                )
    assert not [resource for resource in resources() if resource["kind"] == "Secret"]


def test_gpu_workers_ask_for_a_gpu():
    pod = dict(pods())["worker-gpu"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_what_runs_on_kubernetes_is_what_the_compose_file_runs():
    pairs = {"prefect-server": "prefect", "prefect-worker": "prefect-worker", "register": "register",
             "scheduler": "scheduler", "worker": "worker", "worker-gpu": "worker-gpu"}  # fmt: skip
    found = dict(pods())
    for pod, service in pairs.items():
        args = found[pod]["containers"][0]["args"]
        # A forwarded port reaches the loopback interface of a pod, but not that of a container.
        assert [word.replace("127.0.0.1:8787", ":8787") for word in args] == [
            word.replace("127.0.0.1:8787", ":8787") for word in services()[service]["command"]
        ]


def test_the_image_is_of_the_versions_that_were_tried_and_runs_without_root():
    lines = (DEPLOY / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    torch = next(name for name in project["dependencies"] if name.startswith("torch=="))
    targets = re.split(r"^FROM .* AS ", lines, flags=re.MULTILINE)[2:]
    assert [target.split()[0] for target in targets] == ["gpu", "cpu"]
    for target in targets:
        assert f"pip install {torch}" in target
        assert "--constraint deploy/constraints.txt" in target
        assert re.findall(r"^USER (.*)$", target, re.MULTILINE) == ["10001:10001"]
    for extra in re.findall(r"\.\[([a-z,]+)\]", lines):
        assert set(extra.split(",")) <= set(project["optional-dependencies"])


def test_nothing_but_the_program_is_sent_to_the_builder_of_the_image():
    rules = (DEPLOY / "Dockerfile.dockerignore").read_text().split("\n")
    assert rules[1] == "*"
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = set(re.findall(r"^COPY (?:--\S+ )?(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    assert {source.split("/")[0] for sources in copied for source in sources.split()} == sent
    assert {"deploy/secrets", "**/*.pem"} <= set(rules)


def test_the_entry_point_makes_variables_of_secret_files(tmp_path):
    (tmp_path / "PREFECT_API_AUTH_STRING").write_text("someone:something\n")
    shown = subprocess.run(
        [
            DEPLOY / "entrypoint.sh",
            sys.executable,
            "-c",
            "import os; print(os.environ['PREFECT_API_AUTH_STRING'])",
        ],
        env=os.environ | {"OJALA_SECRETS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "someone:something\n"


def test_the_entry_point_works_without_secrets(tmp_path):
    ended = subprocess.run(
        [DEPLOY / "entrypoint.sh", sys.executable, "-c", "raise SystemExit(3)"],
        env=os.environ | {"OJALA_SECRETS": str(tmp_path / "none")},
        check=False,
    )
    assert ended.returncode == 3


def test_deployments_name_flows_that_are_there_and_queues_that_are_made():
    deployments = yaml.safe_load((DEPLOY / "prefect.yaml").read_text())["deployments"]
    assert [one["name"] for one in deployments] == ["full-survey", "reprocess-region", "train"]
    for one in deployments:
        flow = load_flow_from_entrypoint(one["entrypoint"], use_placeholder_flow=False)
        assert isinstance(flow, Flow)
        assert set(one["parameters"]) <= set(flow.parameters.properties)
        assert one["work_pool"]["work_queue_name"] in register.QUEUES
    variables = set(re.findall(r"\{\{ \$(\w+) \}\}", (DEPLOY / "prefect.yaml").read_text()))
    assert variables == {*register.SETTINGS, *register.TRAINING}


def test_the_image_has_the_settings_of_the_server():
    lines = (DEPLOY / "prefect.env").read_text().splitlines()
    settings = [line for line in lines if line and not line.startswith("#")]
    assert set(settings) <= set(
        (DEPLOY / "Dockerfile").read_text().replace(" \\", "").replace(" ", "").split()
    )


def test_the_settings_bound_the_database_of_the_server(monkeypatch):
    for line in (DEPLOY / "prefect.env").read_text().splitlines():
        if line and not line.startswith("#"):
            monkeypatch.setenv(*line.split("="))
    settings = Settings()
    assert settings.server.services.db_vacuum.enabled_vacuum_types == {"events", "flow_runs", "orphans"}
    assert settings.server.services.db_vacuum.retention_period == timedelta(days=180)
    assert settings.server.analytics_enabled is False
    assert settings.flows.heartbeat_frequency == 60


def test_registering_says_which_settings_are_missing(monkeypatch, capsys):
    for name in [*register.SETTINGS, *register.TRAINING, "PREFECT_API_URL"]:
        monkeypatch.delenv(name, raising=False)
    assert register.main() == 1
    said = capsys.readouterr().err
    assert all(name in said for name in [*register.SETTINGS, "PREFECT_API_URL"])
    assert not any(name in said for name in register.TRAINING), "surveys need none of the training's"
    monkeypatch.setenv("OJALA_LIBRARY", "/data/library.npz")
    assert register.main() == 1
    assert "OJALA_TRAINING_SETTINGS (TOML file" in capsys.readouterr().err
