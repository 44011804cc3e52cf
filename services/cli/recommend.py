"""`recmesh recommend`, `rank` and `explain`: what the ranking service answers, as tables."""

import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from recmesh.ranking.v1 import ranking_service_pb2 as pb
from recmesh.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from services.cli.client import CALL_S, find_address, open_stub
from services.cli.options import (
    DEFAULT_STATE,
    AddressOption,
    ModelVersionOption,
    ScenarioOption,
    StateOption,
    UserOption,
    open_console,
)
from services.cli.rungs import rung_name, rung_value
from services.runtime.errors import InvalidFieldError


class RungName(StrEnum):
    """Rungs that a request may name."""

    POPULAR = "popular"
    RETRIEVAL = "retrieval"
    SCORER = "scorer"
    RERANKER = "reranker"


RungOption = Annotated[RungName | None, typer.Option("--max-rung", help="Do not climb above this rung.")]


def recommend(
    scenario: ScenarioOption,
    user: UserOption,
    count: Annotated[int, typer.Option(help="How many items.")] = 10,
    include: Annotated[list[str] | None, typer.Option(help="Only these items.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Never these items.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="Only items in one of these categories.")] = None,
    exclude_category: Annotated[list[str] | None, typer.Option(help="Never items in these categories.")] = None,
    attribute: Annotated[list[str] | None, typer.Option(help="NAME=VALUE: only items with this attribute.")] = None,
    min_price: Annotated[float | None, typer.Option(help="Lowest price.")] = None,
    max_price: Annotated[float | None, typer.Option(help="Highest price.")] = None,
    published_after: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Earliest day of publication, UTC.")
    ] = None,
    allow_seen: Annotated[
        bool | None, typer.Option("--allow-seen/--no-seen", help="Whether items the user has had may come.")
    ] = None,
    max_rung: RungOption = None,
    candidates: Annotated[int, typer.Option(help="How many candidates to score; 0: the scenario's setting.")] = 0,
    preview: Annotated[bool, typer.Option("--preview", help="Do not log an impression.")] = False,
    hops: Annotated[bool, typer.Option("--hops", help="Show the calls behind the answer.")] = False,
    model_version: ModelVersionOption = "",
    address: AddressOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """The best items for a user, as a table."""
    item_filter = pb.ItemFilter(
        include_item_ids=include or [],
        exclude_item_ids=exclude or [],
        categories=category or [],
        exclude_categories=exclude_category or [],
        attributes=_parse_attributes(attribute or []),
        min_price=min_price,
        max_price=max_price,
        published_after_ms=(
            int(published_after.replace(tzinfo=UTC).timestamp() * 1000) if published_after is not None else None
        ),
        allow_seen=allow_seen,
    )
    request = pb.RecommendRequest(
        scenario=scenario,
        user_id=user,
        page_size=count,
        filter=item_filter,
        candidate_count=candidates,
        max_rung=rung_value(max_rung) if max_rung else None,
        skip_impression=preview,
        include_hops=hops,
        model_version=model_version,
    )
    target = find_address("ranking", state, address)
    with open_stub(RankingServiceStub, target) as stub:
        started = time.perf_counter()
        response = stub.Recommend(request, timeout=CALL_S)
        milliseconds = (time.perf_counter() - started) * 1000
    show_answer(response, milliseconds, open_console())


def show_answer(
    response: pb.RecommendResponse, milliseconds: float, console: Console, before: list[str] | None = None
) -> None:
    """Print an answer. `before`: the item ids of an earlier answer, to mark what moved since."""
    table = Table(title_justify="left")
    table.add_column("rank", justify="right")
    if before is not None:
        table.add_column("moved", justify="right")
    for name, options in (("item", {}), ("title", {}), ("score", {"justify": "right"}), ("source", {}), ("reason", {})):
        table.add_column(name, **options)  # type: ignore[arg-type]
    for rank, item in enumerate(response.items, start=1):
        cells = [item.item_id, item.title or "–", f"{item.score:.4f}", item.source, item.reason]
        moved = [] if before is None else [describe_move(item.item_id, rank, before)]
        table.add_row(str(rank), *moved, *cells)
    console.print(table)
    facts = [f"rung {rung_name(response.rung)}", f"model {response.model_version or 'none'}"]
    if response.variant:
        facts.append(f"variant {response.variant} of {response.experiment}")
    facts += [f"{response.candidate_count} candidates", f"{milliseconds:.1f} ms", f"request {response.request_id}"]
    console.print(" · ".join(facts), style="dim", highlight=False)
    if response.degraded_reasons:
        console.print(f"degraded: {'; '.join(response.degraded_reasons)}", style="yellow", highlight=False)
    if response.hops:
        _show_hops(response.hops, console)


def describe_move(item_id: str, rank: int, before: list[str]) -> str:
    """How an item now at `rank` stands to the earlier answer: "new", "↑2", "↓1" or "="."""
    if item_id not in before:
        return "new"
    rise = before.index(item_id) + 1 - rank
    if rise == 0:
        return "="
    return f"↑{rise}" if rise > 0 else f"↓{-rise}"


def _show_hops(hops: Any, console: Console) -> None:
    table = Table("call", "ms", "bytes sent", "bytes received", box=None, pad_edge=False)
    for hop in hops:
        table.add_row(hop.name, f"{hop.duration_us / 1000:.2f}", f"{hop.request_bytes:,}", f"{hop.response_bytes:,}")
    console.print(table)


def _parse_attributes(pairs: list[str]) -> dict[str, str]:
    attributes = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise InvalidFieldError("--attribute", f"is {pair!r}; write NAME=VALUE")
        attributes[name] = value
    return attributes


def rank(
    scenario: ScenarioOption,
    user: UserOption,
    item: Annotated[list[str], typer.Option(help="Item id; repeat it.")],
    max_rung: RungOption = None,
    model_version: ModelVersionOption = "",
    address: AddressOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Your own items, ordered for a user."""
    request = pb.RankItemsRequest(
        scenario=scenario,
        user_id=user,
        item_ids=item,
        max_rung=rung_value(max_rung) if max_rung else None,
        model_version=model_version,
    )
    with open_stub(RankingServiceStub, find_address("ranking", state, address)) as stub:
        response = stub.RankItems(request, timeout=CALL_S)
    console = open_console()
    table = Table("rank", "item", "score", "catalogue")
    unknown = set(response.unknown_item_ids)
    for place, (item_id, score) in enumerate(zip(response.item_ids, response.scores, strict=True), start=1):
        table.add_row(str(place), item_id, f"{score:.4f}", "unknown" if item_id in unknown else "")
    console.print(table)
    console.print(f"rung {rung_name(response.rung)} · model {response.model_version or 'none'}", highlight=False)
    if response.degraded_reasons:
        console.print(f"degraded: {'; '.join(response.degraded_reasons)}", style="yellow", highlight=False)


def explain(
    scenario: ScenarioOption,
    user: UserOption,
    item: Annotated[str, typer.Option(help="Item id.")],
    model_version: ModelVersionOption = "",
    address: AddressOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Why an item is, or is not, recommended to a user."""
    request = pb.ExplainRecommendationRequest(
        scenario=scenario, user_id=user, item_id=item, model_version=model_version
    )
    with open_stub(RankingServiceStub, find_address("ranking", state, address)) as stub:
        response = stub.ExplainRecommendation(request, timeout=CALL_S)
    console = open_console()
    console.print(response.reason, highlight=False)
    if response.blocked_by:
        console.print(f"kept out by: {', '.join(response.blocked_by)}", style="yellow", highlight=False)
    if response.because_item_id:
        console.print(f"because of: {response.because_title} ({response.because_item_id})", highlight=False)
    table = Table("term", "value", "weight")
    for term in response.contributions:
        table.add_row(term.name, f"{term.value:.4f}", f"{term.weight:g}")
    console.print(table)
    console.print(f"score {response.score:.4f} · model {response.model_version or 'none'}", highlight=False)
