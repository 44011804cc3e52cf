"""What the chart writes for processes is what they take: every settings file passes the process's own check."""

from pathlib import Path

import pytest
import yaml

from deploy.helm.__main__ import TestSettings as HelmTestSettings
from deploy.models.settings import ModelsSettings
from deploy.triton.settings import TritonSettings
from services.candidate.config import CandidateConfig, CandidateSettings, check_scoring
from services.cli.state import StateFolder, read_up_info
from services.feature.config import FeatureConfig, FeatureSettings
from services.feedback.config import FeedbackConfig, FeedbackSettings
from services.ranking.config import RankingConfig, RankingSettings
from services.ranking.experiment_file import read_experiment
from services.ranking.mirror_file import mirror_path, read_mirror
from services.ranking.mirror_settings import MirrorSettings
from services.rollout.config import RolloutConfig
from services.rollout.documents import Served, served_annotation
from services.runtime.config import parse_settings
from services.runtime.scenario import Scenario, load_scenarios
from services.scoring.config import ScoringConfig, ScoringSettings
from tests.chart.helm import SETS, needs_helm, pods_of

pytestmark = needs_helm

CONFIGS = {
    "ranking": RankingConfig,
    "feature": FeatureConfig,
    "candidate": CandidateConfig,
    "feedback": FeedbackConfig,
    "scoring": ScoringConfig,
    "test": HelmTestSettings,
    "rollout": RolloutConfig,
}
# What a value set runs beside the services.
OPTIONAL = {"rollout"}
SECTIONS = {
    "ranking": RankingSettings,
    "feature": FeatureSettings,
    "candidate": CandidateSettings,
    "feedback": FeedbackSettings,
    "scoring": ScoringSettings,
    "triton": TritonSettings,
}


def config_maps(documents):
    for document in documents:
        if document["kind"] == "ConfigMap":
            yield document["metadata"]["labels"]["app.kubernetes.io/component"], document


def scenarios_of(documents, folder: Path) -> dict[str, Scenario]:
    files = []
    for component, document in config_maps(documents):
        if component == "scenario":
            name = document["metadata"]["labels"]["recmesh.io/scenario"]
            files.append(folder / f"{name}.yaml")
            files[-1].write_text(document["data"][f"{name}.yaml"])
    return load_scenarios(files)


@pytest.mark.parametrize("name", [name for name in SETS if name != "everything-off"])
def test_every_process_takes_its_settings(name, rendered, tmp_path):
    seen = set()
    scenarios = scenarios_of(rendered[name], tmp_path)
    assert set(scenarios) == set(SETS[name])
    for component, document in config_maps(rendered[name]):
        if component not in CONFIGS or "config.yaml" not in document["data"]:
            continue
        where = document["metadata"]["name"]
        config = parse_settings(CONFIGS[component], yaml.safe_load(document["data"]["config.yaml"]), where)
        if component in ("ranking", "candidate"):
            check_scoring(config, scenarios)
        seen.add(component)
    assert seen - OPTIONAL == set(CONFIGS) - OPTIONAL
    assert ("rollout" in seen) == (name == "one-on-cpu")


def test_who_takes_user_ids_has_the_key_of_pseudonyms(rendered):
    pods = pods_of(rendered["external-engines"])
    for component, document in config_maps(rendered["external-engines"]):
        if component not in CONFIGS or component == "test" or "config.yaml" not in document["data"]:
            continue
        pod = next(pod for where, pod in pods.items() if where.split("/")[1] == document["metadata"]["name"])
        mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        key_file = yaml.safe_load(document["data"]["config.yaml"]).get("privacy", {}).get("key_file")
        assert (key_file is not None) == (component in ("ranking", "feature", "feedback"))
        assert ("/etc/recmesh/privacy" in mounts) == (key_file is not None)


def test_an_update_finds_the_key_of_pseudonyms_in_its_state_folder(rendered):
    pod = pods_of(rendered["external-engines"])["CronJob/recmesh-update-music"]
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "privacy"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "privacy"]
    assert mount["mountPath"] == f"/state/{StateFolder(Path('/state')).key.name}"
    assert mount["subPath"] == volume["secret"]["items"][0]["path"]


@pytest.mark.parametrize("name", SETS)
def test_scenario_files_and_models_are_taken(name, rendered, tmp_path):
    for component, document in config_maps(rendered[name]):
        where = document["metadata"]["name"]
        if component == "scenario":
            for key in ("models.yaml", "pool.yaml"):
                settings = parse_settings(ModelsSettings, yaml.safe_load(document["data"][key]), where)
                assert (settings.triton_repository is not None) == (key == "pool.yaml")
        elif component == "update":
            (tmp_path / "run").mkdir(exist_ok=True)
            (tmp_path / "run" / "up.json").write_text(document["data"]["up.json"])
            info = read_up_info(StateFolder(tmp_path))
            assert {"feedback", "feature"} <= set(info.processes)
            assert (info.tls is not None) == (name == "four-on-gpu")


def test_sections_of_scenarios_are_taken(rendered, tmp_path):
    scenarios = scenarios_of(rendered["four-on-gpu"], tmp_path)
    assert set(scenarios) == set(SETS["four-on-gpu"])
    for scenario in scenarios.values():
        for section, kind in SECTIONS.items():
            assert isinstance(scenario.section(section, kind), kind)


def test_canary_and_mirror_are_what_ranking_takes(rendered, tmp_path):
    scenarios = scenarios_of(rendered["four-on-gpu"], tmp_path)
    (document,) = [d for _, d in config_maps(rendered["four-on-gpu"]) if d["metadata"]["name"].endswith("-experiments")]
    assert set(document["data"]) == {"music.yaml", "music.mirror.yaml"}
    file = tmp_path / "experiment.yaml"
    file.write_text(document["data"]["music.yaml"])
    experiment = read_experiment(file, scenarios["music"])
    assert experiment is not None
    assert [(variant.percent, variant.model_version) for variant in experiment.variants] == [(87.5, None), (12.5, "m2")]
    assert experiment.earlier == ({"current": 95.0, "canary": 5.0},)
    mirror = mirror_path(tmp_path, "music")
    mirror.write_text(document["data"]["music.mirror.yaml"])
    assert read_mirror(mirror) == MirrorSettings(model_version="m3", percent=20)


def test_canary_and_mirror_are_loaded_wherever_the_current_version_is(rendered):
    (document,) = [
        d for c, d in config_maps(rendered["four-on-gpu"])
        if c == "scenario" and d["metadata"]["labels"]["recmesh.io/scenario"] == "music"
    ]  # fmt: skip
    models = yaml.safe_load(document["data"]["models.yaml"])["scenarios"]["music"]
    assert (models["current"], models["also"]) == ("m1", ["m2", "m3"])
    pods = pods_of(rendered["four-on-gpu"])
    for pod in ("Deployment/recmesh-triton-music", "Deployment/recmesh-scoring-music", "Deployment/recmesh-candidate"):
        images = [v["image"]["reference"] for v in pods[pod]["volumes"] if "image" in v]
        assert images == [f"registry.example/models/music:{version}" for version in ("m1", "m2", "m3")]


def test_pods_bring_what_the_rollout_controller_annotates(rendered):
    documents = rendered["one-on-cpu"]
    (config,) = [d for c, d in config_maps(documents) if c == "rollout" and d["data"]]
    objects = parse_settings(RolloutConfig, yaml.safe_load(config["data"]["config.yaml"]), "rollout").scenarios["video"]
    there = {(d["kind"], d["metadata"]["name"]) for d in documents}
    assert ("ConfigMap", objects.state) in there
    pods = pods_of(documents)
    for name in (objects.pool, *objects.servers):
        (container,) = pods[f"Deployment/{name}"]["initContainers"]
        (variable,) = container["env"]
        assert variable["valueFrom"]["fieldRef"]["fieldPath"] == f"metadata.annotations['{served_annotation('video')}']"
        assert container["name"] == "models-video"
        key = container["args"][-1].rpartition("/")[2]
        (scenario,) = [d for c, d in config_maps(documents) if c == "scenario"]
        models = parse_settings(ModelsSettings, yaml.safe_load(scenario["data"][key]), key).scenarios["video"]
        assert models.current == objects.initial
        served = models.served({variable["name"]: Served("v2", ("v1",)).text})
        assert served.versions == ["v2", "v1"]


def test_the_rollout_controller_may_change_only_what_it_has_to(rendered):
    (role,) = [d for d in rendered["one-on-cpu"] if d["kind"] == "Role"]
    named = {
        (resource, name): rule["verbs"]
        for rule in role["rules"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
    }
    assert named == {
        ("configmaps", "*"): ["list"],
        ("configmaps", "recmesh-ranking-experiments"): ["get", "patch"],
        ("configmaps", "recmesh-rollout-video"): ["get", "patch"],
        ("deployments", "recmesh-candidate"): ["get", "patch"],
        ("deployments", "recmesh-scoring-video"): ["get", "patch"],
        ("deployments", "recmesh-triton-video"): ["get", "patch"],
        ("pods", "*"): ["list"],
        ("events", "*"): ["create"],
        ("leases", "recmesh-rollout"): ["get", "update"],
    }
    assert not [d for documents in rendered.values() for d in documents if d["kind"].startswith("ClusterRole")]


def test_callers_are_those_of_the_architecture(rendered):
    callers = {}
    for component, document in config_maps(rendered["four-on-gpu"]):
        if component in CONFIGS and component != "test" and "config.yaml" in document["data"]:
            server = yaml.safe_load(document["data"]["config.yaml"])["server"]
            name = document["metadata"]["name"].removeprefix("recmesh-")
            callers[name] = {
                caller.removesuffix(".mesh.svc").removeprefix("recmesh-") for caller in server["allowed_clients"]
            }
    scoring = {f"scoring-{scenario}" for scenario in SETS["four-on-gpu"]}
    assert callers == {
        "ranking": {"web.shop.svc", "test"},
        "candidate": {"ranking"},
        "feature": {"ranking", "candidate", "update-ecommerce", "catalogue.shop.svc"} | scoring,
        "feedback": {"ranking", "candidate", "feature", "update-ecommerce", "web.shop.svc"},
        **{name: {"ranking", "candidate"} for name in scoring},
    }


def test_certificates_name_what_others_know_their_owners_by(rendered):
    identities = {
        d["metadata"]["name"]: d["spec"]["dnsNames"][0] for d in rendered["four-on-gpu"] if d["kind"] == "Certificate"
    }
    assert len(identities) == 4 + 2 * 4 + 2
    assert all(identity == f"{name}.mesh.svc" for name, identity in identities.items())
