"""NetworkPolicies: exactly the arrows of the architecture, evaluated as a cluster does."""

import itertools

from tests.chart.helm import SETS, needs_helm
from tests.chart.test_objects import selects

pytestmark = needs_helm

PORTS = {"triton": 8001}


def labels_of(component: str, scenario: str | None = None) -> dict[str, str]:
    labels = {
        "app.kubernetes.io/name": "recmesh",
        "app.kubernetes.io/instance": "recmesh",
        "app.kubernetes.io/component": component,
    }
    return labels | ({"recmesh.io/scenario": scenario} if scenario else {})


def policy_for(documents, labels):
    (policy,) = [
        d for d in documents
        if d["kind"] == "NetworkPolicy" and selects(d["spec"]["podSelector"]["matchLabels"], labels)
    ]  # fmt: skip
    return policy["spec"]


def admits(rules, side: str, labels, port: int) -> bool:
    """Whether one of the rules names a peer in this namespace with these labels, and the port."""
    return any(
        any(
            "namespaceSelector" not in peer and selects(peer["podSelector"]["matchLabels"], labels)
            for peer in rule[side]
            if "podSelector" in peer
        )
        and ("ports" not in rule or any(entry["port"] == port for entry in rule["ports"]))
        for rule in rules
    )


def allowed(documents, source, target) -> bool:
    """Whether a call from one component to another passes both policies."""
    port = PORTS.get(target[0], 50051)
    a, b = labels_of(*source), labels_of(*target)
    return admits(policy_for(documents, a)["egress"], "to", b, port) and admits(
        policy_for(documents, b)["ingress"], "from", a, port
    )


def test_exactly_the_arrows(rendered):
    documents = rendered["four-on-gpu"]
    shared = [("ranking",), ("feature",), ("candidate",), ("feedback",)]
    scoring = [("scoring", scenario) for scenario in SETS["four-on-gpu"]]
    pools = [("triton", scenario) for scenario in SETS["four-on-gpu"]]
    update = ("update", "ecommerce")
    everything = [*shared, *scoring, *pools, update, ("test",)]
    arrows = {
        (("ranking",), ("feature",)),
        (("ranking",), ("candidate",)),
        (("ranking",), ("feedback",)),
        (("candidate",), ("feature",)),
        (("candidate",), ("feedback",)),
        (("feature",), ("feedback",)),
        (("test",), ("ranking",)),
        (update, ("feature",)),
        (update, ("feedback",)),
        *((caller, one) for caller in (("ranking",), ("candidate",)) for one in scoring),
        *((one, ("feature",)) for one in scoring),
        *((("scoring", scenario), ("triton", scenario)) for scenario in SETS["four-on-gpu"]),
    }
    found = {
        (source, target)
        for source, target in itertools.product(everything, everything)
        if source != target and allowed(documents, source, target)
    }
    assert found == arrows


def test_clients_and_metrics(rendered):
    documents = rendered["one-on-cpu"]
    client = {"recmesh.io/client": "true"}
    for component, may in {"ranking": True, "feedback": True, "feature": False, "candidate": False}.items():
        ingress = policy_for(documents, labels_of(component))["ingress"]
        assert admits(ingress, "from", client, 50051) is may, component
        assert not admits(ingress, "from", client, 9090), component
        scraped = [rule for rule in ingress if {"protocol": "TCP", "port": 9090} in rule["ports"]]
        assert len(scraped) == 1, component


def test_only_who_reads_models_reaches_the_bucket(rendered):
    def reaches(component: str, scenario: str | None = None) -> bool:
        egress = policy_for(rendered["four-on-gpu"], labels_of(component, scenario))["egress"]
        return any("ipBlock" in peer for rule in egress for peer in rule["to"])

    assert reaches("triton", "video")
    assert reaches("scoring", "video")
    assert reaches("candidate")
    assert not reaches("triton", "music"), "its models are mounted"
    assert not reaches("ranking")
    assert not reaches("feedback")
