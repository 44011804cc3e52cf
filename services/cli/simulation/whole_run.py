"""One run of simulated users on a mesh, from their histories to the count of what was kept."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from rich.console import Console

from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from services.cli.bench.machine import describe_machine
from services.cli.client import CALL_S, CallError
from services.cli.simulation.chaos import Chaos
from services.cli.simulation.connections import Stubs, open_stubs
from services.cli.simulation.drive import Record, Run
from services.cli.simulation.histories import send_histories
from services.cli.simulation.kept import read_kept
from services.cli.simulation.report import summarise
from services.cli.simulation.world import World
from services.cli.state import StateFolder
from services.simulation.counting import Audit, audit


@dataclass(frozen=True)
class RunPlan:
    """How a run goes; see the options of `recmesh simulate`."""

    seconds: float
    rate: float
    concurrency: int = 8
    wait_s: float = 60.0
    kills: int = 0
    erase: bool = False
    arm: str | None = None
    control: str | None = None


async def simulate_mesh(world: World, state: StateFolder, plan: RunPlan, console: Console) -> dict[str, Any]:
    """All figures of a run on the mesh of the state folder. CallError when a service cannot be asked."""
    chaos = Chaos(state, plan.kills, plan.seconds, world.seed) if plan.kills else None
    try:
        record, found = await _run(world, plan, chaos, console)
    except grpc.aio.AioRpcError as error:
        raise CallError(f"simulated run {world.run_id}: {error.code().name}: {error.details()}") from None
    except TimeoutError:
        raise CallError(
            f"simulated run {world.run_id}: feature did not read the users' histories in time (`recmesh status`)"
        ) from None
    # A run goes on until the last kill is got over.
    seconds = plan.seconds if chaos is None else max(plan.seconds, record.seconds)
    summary = summarise(world, record, found, seconds, plan.arm, plan.control)
    return summary | {"machine": describe_machine(), "kills": chaos.as_json(record.failures) if chaos else None}


def problems(summary: Mapping[str, Any]) -> list[str]:
    """What of a run's figures must not be."""
    wrong = [] if summary["agree"] else ["the counts differ"]
    if (kills := summary["kills"]) is not None:
        if not kills["recovered"]:
            wrong.append("the mesh did not recover by itself (`recmesh status`)")
        if count := kills["answerless_while_ranking_served"]:
            wrong.append(f"{count} requests got no answer though ranking ran")
    return wrong


async def _run(world: World, plan: RunPlan, chaos: Chaos | None, console: Console) -> tuple[Record, Audit]:
    async with open_stubs(world.addresses) as stubs:
        with console.status(f"simulated: giving {len(world.users)} users their histories"):
            offset = await send_histories(world, stubs)
        with console.status(f"simulated: run {world.run_id} for {plan.seconds:.0f} s"):
            run = Run(world, stubs, plan.seconds)
            if chaos is None:
                record = await run.drive(plan.rate, plan.concurrency)
            else:
                kills = asyncio.create_task(chaos.run())
                record = await run.drive(plan.rate, plan.concurrency, lambda: not kills.done())
                await kills
        with console.status("simulated: counting what was kept"):
            kept = await read_kept(world, stubs, record, offset, plan.wait_s)
        if plan.erase:
            await _erase_users(world, stubs)
    return record, audit(record.answers, record.events, kept, world.scenario.head.tasks)


async def _erase_users(world: World, stubs: Stubs) -> None:
    """From the log first, so that it does not bring them back."""
    for user in world.users:
        who = {"scenario": world.scenario.name, "user_id": user.user_id}
        await stubs.feedback.DeleteUser(feedback_pb.DeleteUserRequest(**who), timeout=CALL_S)
        await stubs.feature.DeleteUser(feature_pb.DeleteUserRequest(**who), timeout=CALL_S)
