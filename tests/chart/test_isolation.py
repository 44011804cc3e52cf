"""A scenario is a tenant: its file adds and removes its own objects, and touches nobody else's pool."""

from tests.chart.helm import SCENARIOS, Document, needs_helm, render

pytestmark = needs_helm

VERSIONS = {"video": "v1", "music": "m1", "social": "s1"}
SHARED = {"ranking", "feature", "candidate", "feedback", "test"}


def objects(*scenarios: str, **sets: str) -> dict[tuple[str, str], Document]:
    options = []
    for scenario in scenarios:
        options += ["-f", SCENARIOS / f"{scenario}.yaml"]
        options += ["--set", f"scenarios.{scenario}.kubernetes.model.version={VERSIONS[scenario]}"]
    for name, value in sets.items():
        options += ["--set", f"{name.replace('__', '.')}={value}"]
    return {(d["kind"], d["metadata"]["name"]): d for d in render(*options)}


def component(document: Document) -> str:
    return document["metadata"]["labels"]["app.kubernetes.io/component"]


def test_a_scenario_adds_its_own_objects_and_changes_only_who_serves_all():
    one, two = objects("video"), objects("video", "music")
    assert not set(one) - set(two)
    for key in set(two) - set(one):
        assert two[key]["metadata"]["labels"]["recmesh.io/scenario"] == "music"
    changed = {key for key in one if one[key] != two[key]}
    assert changed, "the services that serve all scenarios must learn of it"
    for key in changed:
        assert component(one[key]) in SHARED
        assert key[0] in ("ConfigMap", "Deployment", "StatefulSet", "NetworkPolicy")


def test_another_version_replaces_the_scenarios_own_pods_and_candidate():
    before = objects("video", "music")
    after = objects("video", "music", scenarios__video__kubernetes__model__version="v2")
    assert set(before) == set(after)
    assert {key for key in before if before[key] != after[key]} == {
        ("ConfigMap", "recmesh-scenario-video"),
        ("Deployment", "recmesh-scoring-video"),
        ("Deployment", "recmesh-triton-video"),
        ("Deployment", "recmesh-candidate"),
    }


def test_another_share_of_a_canary_restarts_nobody():
    canary = {"scenarios__video__kubernetes__canary__version": "v2"}
    before = objects("video", **canary)
    after = objects("video", **canary, scenarios__video__kubernetes__canary__percent="20")
    assert {key for key in before if before[key] != after[key]} == {("ConfigMap", "recmesh-ranking-experiments")}


def test_another_share_of_shadow_requests_restarts_nobody():
    mirror = {"scenarios__video__kubernetes__mirror__version": "v2"}
    before = objects("video", **mirror)
    after = objects("video", **mirror, scenarios__video__kubernetes__mirror__percent="20")
    assert {key for key in before if before[key] != after[key]} == {("ConfigMap", "recmesh-ranking-experiments")}


def test_a_pool_is_not_replaced_for_a_setting_that_is_not_its_own():
    before = objects("video")
    after = objects("video", scenarios__video__ranking__deadline_ms="200")
    changed = {key for key in before if before[key] != after[key]}
    assert ("Deployment", "recmesh-ranking") in changed
    assert ("Deployment", "recmesh-triton-video") not in changed
