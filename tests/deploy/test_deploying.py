"""deploy/: units, image and manifests agree with the code, as far as can be told without them."""

from __future__ import annotations

import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import kvstore.cli
from kvstore import placing
from kvstore.cli import build_parser
from kvstore.config import endpoints
from p4xos import secret
from p4xos.config import Cluster

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "systemd" / "p4xos-kvstore@.service"
DOCKER = ROOT / "deploy" / "docker"
KUBERNETES = ROOT / "deploy" / "kubernetes"


def unit_lines(name: str) -> list[str]:
    """The values of a key of the unit."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), flags=re.MULTILINE)


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """What docs/deploying.md has its reader make."""
    places = {"n1": "10.0.0.1", "n2": "10.0.0.2", "n3": "10.0.0.3"}
    return placing.create(tmp_path_factory.mktemp("new"), places)


def secret_of(cluster_file: Path) -> Path:
    """Where a node that is given this cluster file looks for the secret."""
    text = Cluster.template(1).to_toml()
    return secret.path_of(Cluster.parse(text, str(cluster_file), cluster_file.parent))


def test_the_secret_is_where_nodes_look_for_it(cluster: Cluster) -> None:
    """Beside the cluster file: in what the unit may reach, compose shares and pods mount."""
    assert cluster.secret == "file"
    made = secret.path_of(cluster)
    assert made.stat().st_mode & 0o777 == 0o600
    assert secret_of(cluster.directory / "cluster.toml") == made
    (command,) = unit_lines("ExecStart")
    unit = build_parser().parse_args(command.replace("%i", "n1").split()[1:])
    assert str(secret_of(unit.cluster).parent) == unit_lines("ReadWritePaths")[0]
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    created = build_parser().parse_args(services["create"]["command"]).directory
    for name in ("n1", "n2", "n3"):
        node = build_parser().parse_args(services[name]["command"])
        assert secret_of(node.cluster) == created / made.name
        assert services[name]["volumes"] == services["create"]["volumes"]
        assert any(volume.endswith(f":{created}") for volume in services[name]["volumes"])
    (stateful,) = manifests("statefulset.yaml")
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    (data,) = (m["mountPath"] for m in container["volumeMounts"] if m["name"] == "data")
    (file,) = (m["mountPath"] for m in container["volumeMounts"] if m["name"] == "cluster")
    assert str(secret_of(Path(file)).parent) == data


def test_the_pages_say_where_the_secret_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "deploying.md").read_text()
    for part in page.split("\n## ")[1:]:
        if part.startswith(("Before", "systemd", "Docker", "Kubernetes")):
            assert secret.SECRET_NAME in part, part.split("\n")[0]
    flags = ["--at", "n1=10.0.0.1", "--directory", str(tmp_path)]
    assert kvstore.cli.main(["create", *flags]) == 0
    told = capsys.readouterr()
    assert f"{secret.SECRET_NAME} (mode 0600) to every machine" in told.out
    key = secret.read(tmp_path / secret.SECRET_NAME).key.hex()
    assert key not in told.out + told.err


# systemd -----------------------------------------------------------------------------------------


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """With this Python in place of the installed program, which systemd wants to see there."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is missing (Debian package systemd)")
    (command,) = unit_lines("ExecStart")
    text = UNIT.read_text().replace(command.split()[0], sys.executable)
    unit = tmp_path / "p4xos-kvstore@n1.service"
    unit.write_text(text)
    done = subprocess.run(
        [program, "verify", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_starts_a_node_as_the_command_line_has_it() -> None:
    (command,) = unit_lines("ExecStart")
    program, *flags = command.replace("%i", "n1").split()
    assert Path(program).name == "kvstore"
    parsed = build_parser().parse_args(flags)
    assert (parsed.name, parsed.join) == ("n1", False)
    assert str(parsed.cluster).startswith(unit_lines("ReadWritePaths")[0])


# Docker ------------------------------------------------------------------------------------------


def test_the_image_is_made_of_files_that_are_there() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, flags=re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert "kvstore" in sources
    sent = (DOCKER / "Dockerfile.dockerignore").read_text()
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}\n" in sent, source
    packages = re.findall(r"[\"'](\w+)\*[\"']", (ROOT / "pyproject.toml").read_text())
    needed = {name for name in packages if name in ("p4xos", "kvstore")}
    assert needed <= set(sources)


def test_compose_runs_what_it_creates(tmp_path: Path) -> None:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    services = dict(compose["services"])
    flags = build_parser().parse_args(services.pop("create")["command"])
    created = placing.create(tmp_path / "new", placing.parse_places(flags.at))
    assert sorted(services) == [node.name for node in created.nodes]
    for name, service in services.items():
        parsed = build_parser().parse_args(service["command"])
        address = endpoints(created)[name]
        assert parsed.name == name == service["environment"]["P4XOS_NODE"]
        assert parsed.cluster == flags.directory / "cluster.toml"
        assert service["networks"]["nodes"]["ipv4_address"] == address.host
        assert service["ports"][0].endswith(f":{address.port}")


def load_healthcheck() -> ModuleType:
    spec = importlib.util.spec_from_file_location("healthcheck", DOCKER / "healthcheck.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("answer", "code"), [(b"+PONG\r\n", 0), (b"-LOADING\r\n", 1), (b"", 1)])
def test_the_health_check_asks_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, code: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        created = Cluster.template(1, 20_000)
        text = created.to_toml() + f'\n[[kvstore]]\nnode = "n1"\naddress = "127.0.0.1:{port}"\n'
        file = tmp_path / "cluster.toml"
        file.write_text(text)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(64) == b"PING\r\n"
                connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        monkeypatch.setenv("P4XOS_CLUSTER", str(file))
        monkeypatch.setenv("P4XOS_NODE", "n1")
        assert load_healthcheck().main() == code
        server.join()
    assert load_healthcheck().main() == 1, "nobody listens now"
    monkeypatch.delenv("P4XOS_NODE")
    assert load_healthcheck().main() == 0, "no node is meant to run here"


# Kubernetes --------------------------------------------------------------------------------------


def test_the_pods_serve_where_the_cluster_file_says(cluster: Cluster) -> None:
    (stateful,) = manifests("statefulset.yaml")
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    ports = {
        (port["name"], port.get("protocol", "TCP"), port["containerPort"])
        for port in container["ports"]
    }
    node = cluster.nodes[0]
    assert node.metrics is not None
    assert ports == {
        ("resp", "TCP", endpoints(cluster)["n1"].port),
        ("peer", "TCP", node.peer.port),
        ("metrics", "TCP", node.metrics.port),
        ("acceptor", "UDP", cluster.acceptors[0].address.port),
        ("coordinator", "UDP", cluster.coordinators[0].address.port),
        ("learner", "UDP", cluster.learners[0].address.port),
    }
    for service in manifests("services.yaml"):
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            assert any(target in (name, number) for name, _, number in ports)


def test_a_pod_starts_the_node_of_its_number(tmp_path: Path) -> None:
    """The shell line is run, with a program that only tells how it was called."""
    (stateful,) = manifests("statefulset.yaml")
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    program = tmp_path / "kvstore"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    for number in range(stateful["spec"]["replicas"]):
        environment = {"HOSTNAME": f"p4xos-{number}", "PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run(
            [*container["command"], *container["args"]],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        parsed = build_parser().parse_args(done.stdout.split())
        assert (parsed.name, parsed.join) == (f"n{number + 1}", False)
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(parsed.cluster) in mounts
    assert str(parsed.cluster.parent) in mounts


def test_names_in_the_manifests_meet() -> None:
    (stateful,) = manifests("statefulset.yaml")
    spec, pod = stateful["spec"], stateful["spec"]["template"]
    labels = pod["metadata"]["labels"]
    headless, clients = manifests("services.yaml")
    (budget,) = manifests("disruption.yaml")
    assert headless["metadata"]["name"] == spec["serviceName"]
    assert headless["spec"]["clusterIP"] == "None"
    for selector in (
        spec["selector"]["matchLabels"], headless["spec"]["selector"], clients["spec"]["selector"],
        budget["spec"]["selector"]["matchLabels"],
    ):  # fmt: skip
        assert selector == labels
    *volumes, storage = manifests("volumes.yaml")
    (claim,) = spec["volumeClaimTemplates"]
    name = stateful["metadata"]["name"]
    assert [volume["spec"]["claimRef"]["name"] for volume in volumes] == [
        f"{claim['metadata']['name']}-{name}-{number}" for number in range(spec["replicas"])
    ]
    classes = {volume["spec"]["storageClassName"] for volume in volumes}
    assert classes == {storage["metadata"]["name"], claim["spec"]["storageClassName"]}
    (used,) = (v["configMap"]["name"] for v in pod["spec"]["volumes"] if "configMap" in v)
    (kustomization,) = manifests("kustomization.yaml")
    assert [each["name"] for each in kustomization["configMapGenerator"]] == [used]
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files


def test_the_image_runs_as_the_user_that_kubernetes_expects() -> None:
    (stateful,) = manifests("statefulset.yaml")
    context = stateful["spec"]["template"]["spec"]["securityContext"]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}\n" in (
        DOCKER / "Dockerfile"
    ).read_text()
