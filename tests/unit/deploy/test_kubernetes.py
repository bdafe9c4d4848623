"""The manifests: of the schema of the Kubernetes that they name, hardened, and consistent with each other."""

import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from trainer.cli import nightly
from trainer.cli.app import app as commands
from trainer.nightly.job import Ended
from trainer.nightly.journal import Journal
from trainer.nightly.outcome import Outcome
from trainer.nightly.places import Places

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes"
KUBERNETES = "1.37"
Document = dict[str, Any]


def kustomization(folder: Path) -> Document:
    document: Document = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return document


def documents() -> list[Document]:
    """Everything that the kustomization names."""
    names = kustomization(FOLDER)["resources"]
    return [document for name in names for document in yaml.safe_load_all((FOLDER / name).read_text())]


def with_object_storage() -> list[Document]:
    """The same with the component's patches, applied as RFC 6902 has them."""
    patched = copy.deepcopy(documents())
    for patch in kustomization(FOLDER / "components" / "object-storage")["patches"]:
        target = patch["target"]
        [document] = [
            found for found in patched if (found["kind"], found["metadata"]["name"]) == tuple(target.values())
        ]
        for operation in yaml.safe_load(patch["patch"]):
            *way, last = operation["path"].strip("/").split("/")
            place: Any = document
            for step in way:
                place = place[int(step)] if isinstance(place, list) else place[step]
            if last == "-":
                assert operation["op"] == "add"
                place.append(operation["value"])
            else:
                key = int(last) if isinstance(place, list) else last
                assert operation["op"] == "replace"
                assert place[key] is not None
                place[key] = operation["value"]
    return patched


def pods(found: list[Document]) -> dict[str, Document]:
    """The pod specs by the name of what makes them."""
    specs = {}
    for document in found:
        if document["kind"] == "Deployment":
            specs[document["metadata"]["name"]] = document["spec"]["template"]["spec"]
        if document["kind"] == "CronJob":
            specs[document["metadata"]["name"]] = document["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return specs


@pytest.mark.parametrize("found", [documents(), with_object_storage()], ids=["shared volume", "object storage"])
def test_every_manifest_is_of_its_schema(found: list[Document]) -> None:
    assert {"Deployment", "CronJob", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"} <= {
        document["kind"] for document in found
    }
    for document in found:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
def test_kubectl_makes_the_same_of_the_kustomization_and_its_component(tmp_path: Path) -> None:
    """With a kustomization of one's own over both, as docs/kubernetes.md has it."""
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    own = {
        "resources": ["kubernetes"],
        "components": ["kubernetes/components/object-storage"],
        "configMapGenerator": [
            {"name": "mts4mm", "behavior": "merge", "literals": ["MTS4MM_MODELS_URL=s3://b/models"]}
        ],
        "images": [{"name": name, "newName": f"registry/{name}"} for name in ("mts4mm-service", "mts4mm-trainer")],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(own))
    done = subprocess.run(["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout)}
    wanted = {(each["kind"], each["metadata"]["name"]): each for each in with_object_storage()}
    assert made.keys() == wanted.keys()
    assert made["ConfigMap", "mts4mm"]["data"] == wanted["ConfigMap", "mts4mm"]["data"] | {
        "MTS4MM_MODELS_URL": "s3://b/models"
    }
    for name, spec in pods(list(made.values())).items():
        [container] = spec["containers"]
        image = container["image"]
        assert image == f"registry/mts4mm-{'trainer' if name == 'retrain' else name}:0.1.0"
        container["image"] = image.removeprefix("registry/").partition(":")[0]
    for name, document in made.items():
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        assert document.get("spec") == wanted[name].get("spec"), name


def offered() -> list[tuple[str, str]]:
    """Each kustomization that docs/kubernetes.md has to copy, and the file that it names besides the manifests."""
    blocks = re.findall(r"```yaml\n(.*?)```", (FOLDER.parents[1] / "docs" / "kubernetes.md").read_text(), re.DOTALL)
    return list(zip(blocks[::2], blocks[1::2], strict=True))


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
@pytest.mark.parametrize(("own", "besides"), offered(), ids=["another policy", "a volume for the state"])
def test_kubectl_makes_what_is_offered_to_copy(own: str, besides: str, tmp_path: Path) -> None:
    made = _made(own.replace("PATH/deploy/kubernetes", "kubernetes"), besides, tmp_path)
    added = yaml.safe_load(besides)
    assert added["spec"] == next(each["spec"] for each in made if each["metadata"]["name"] == added["metadata"]["name"])
    for document in made:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    for spec in pods(made).values():
        mounted = {mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
def test_kubectl_adds_the_monitor_of_the_pods(tmp_path: Path) -> None:
    own = {"resources": ["kubernetes"], "components": ["kubernetes/components/pod-monitor"]}
    [monitor] = [each for each in _made(yaml.safe_dump(own), "", tmp_path) if each["kind"] == "PodMonitor"]
    assert monitor["metadata"]["namespace"] == "mts4mm"


def _made(own: str, besides: str, folder: Path) -> list[Document]:
    """What a kustomization of one's own beside the manifests makes, with the last file that it names."""
    shutil.copytree(FOLDER, folder / "kubernetes")
    (folder / "kustomization.yaml").write_text(own)
    if besides:
        (folder / yaml.safe_load(own)["resources"][-1]).write_text(besides)
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_every_file_is_named_by_the_kustomization() -> None:
    there = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert there == set(kustomization(FOLDER)["resources"])


@pytest.mark.parametrize("name", ["service", "retrain"])
def test_pods_meet_the_restricted_standard(name: str) -> None:
    """What Pod Security Admission's level `restricted` asks for, and a read-only root besides."""
    spec = pods(documents())[name]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_a_redis_blip_restarts_no_pod_and_no_pod_takes_requests_without_a_model() -> None:
    """Liveness that asks Redis restarts every replica at once; readiness that asks nothing serves errors."""
    [container] = pods(documents())["service"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_pods_outlive_the_wait_for_the_first_model_and_a_long_fetch() -> None:
    """A startup probe that asks for a model kills every pod of a new shop, again and again, until a night has ended."""
    [container] = pods(documents())["service"]["containers"]
    probe = container["startupProbe"]
    assert probe["httpGet"]["path"] == "/livez"
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 1800


@pytest.mark.parametrize("name", ["service", "retrain"])
def test_linear_algebra_takes_no_more_cores_of_the_node_than_the_pod_asks_for(name: str) -> None:
    [container] = pods(documents())[name]["containers"]
    threads = next(entry["value"] for entry in container["env"] if entry["name"] == "OMP_NUM_THREADS")
    assert threads == container["resources"]["requests"]["cpu"]


def test_prometheus_finds_the_pods_under_the_job_that_the_alerts_ask_for() -> None:
    """By the operator, or by a configuration of one's own."""
    observability = FOLDER.parent / "observability"
    rules = (observability / "rules.yml").read_text()
    [job] = set(re.findall(r'job="([^"]+)"', rules))
    monitor = yaml.safe_load((FOLDER / "components" / "pod-monitor" / "pod-monitor.yaml").read_text())
    [deployment] = [document for document in documents() if document["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in ports
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": job}]
    [scrape] = yaml.safe_load((observability / "scrape-kubernetes.yml").read_text())["scrape_configs"]
    assert scrape["job_name"] == job
    kept = scrape["relabel_configs"][0]["regex"].split(";")
    assert kept == [labels["app.kubernetes.io/name"], endpoint["port"]]
    [by_compose] = yaml.safe_load((observability / "prometheus.yml").read_text())["scrape_configs"]
    assert by_compose["job_name"] == job


def test_a_pod_has_the_time_to_drain() -> None:
    spec = pods(documents())["service"]
    [container] = spec["containers"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    settings = {entry["name"]: entry.get("value") for entry in container["env"]}
    drain, grace = (float(settings[f"MTS4MM_{name}_SECONDS"]) for name in ("DRAIN", "GRACE"))
    assert pause + drain + grace + 2 <= spec["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.NOTHING_NEW, Outcome.ROLLED_BACK, None])
def test_a_night_that_ends_without_a_new_model_is_not_tried_again(
    outcome: Outcome | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The job's own arguments; without the last a scheduler sees what came of the night."""
    journal = Journal.begin(tmp_path, {})
    ended = None if outcome is None else Ended(outcome, journal, "a reason")
    monkeypatch.setattr(nightly, "run_night", lambda *_, **__: ended)
    [container] = pods(documents())["retrain"]["containers"]
    assert CliRunner().invoke(commands, container["args"]).exit_code == 0
    assert CliRunner().invoke(commands, container["args"][:-1]).exit_code == (outcome or Outcome.BUSY)


def test_events_are_removed_from_the_log_that_the_nights_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command as docs/events.md has it, in a pod like the job's."""
    nights: list[Places] = []
    monkeypatch.setattr(nightly, "run_night", lambda places, *_, **__: nights.append(places))
    [container] = pods(documents())["retrain"]["containers"]
    for entry in container["env"]:
        monkeypatch.setenv(entry["name"], entry["value"])
    assert CliRunner().invoke(commands, container["args"]).exit_code == 0
    assert (nights[0].store, nights[0].log) == (Path("/models"), Path("/data/log"))
    removal = CliRunner().invoke(commands, ["events", "remove", "--user", "bot-7", "--models", "/models"])
    assert f"{nights[0].log}: there is no log of events" in str(removal.exception)


def test_selectors_find_the_pods() -> None:
    found = documents()
    labels = {
        document["metadata"]["name"]: document["spec"]["template"]["metadata"]["labels"]
        for document in found
        if document["kind"] == "Deployment"
    }
    for document in found:
        if document["kind"] in ("Service", "PodDisruptionBudget"):
            selector = document["spec"]["selector"]
            wanted = selector.get("matchLabels", selector)
            assert wanted.items() <= labels["service"].items()
        if document["kind"] == "HorizontalPodAutoscaler":
            assert document["spec"]["scaleTargetRef"]["name"] in labels


def test_with_object_storage_nothing_needs_a_volume_that_many_may_write() -> None:
    found = with_object_storage()
    modes = [document["spec"]["accessModes"] for document in found if document["kind"] == "PersistentVolumeClaim"]
    assert all(mode == ["ReadWriteOnce"] for mode in modes)
    volumes = {volume["name"]: volume for volume in pods(found)["service"]["volumes"]}
    assert "emptyDir" in volumes["models"]
