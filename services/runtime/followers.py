"""One piece of work for each of a set that changes."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def run_for_each(
    next_members: Callable[[Sequence[T]], Awaitable[Sequence[T]]],
    work: Callable[[T], Coroutine[Any, Any, None]],
) -> None:
    """Run `work` for every member of a set: begun when the member comes, cancelled when it goes. Never returns.

    `next_members(known)` waits until the members are others than `known` and returns them; they are told apart by
    identity. `work` never returns; what it raises is raised here.
    """
    tasks: dict[T, asyncio.Task[None]] = {}
    changed: asyncio.Task[Sequence[T]] | None = None

    async def wait(known: Sequence[T]) -> Sequence[T]:
        return await next_members(known)

    try:
        while True:
            changed = asyncio.create_task(wait(list(tasks)))
            await asyncio.wait({changed, *tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks.values():
                if task.done():
                    task.result()
            members = await changed
            for gone in [member for member in tasks if member not in members]:
                tasks.pop(gone).cancel()
            tasks |= {member: asyncio.create_task(work(member)) for member in members if member not in tasks}
    finally:
        left: list[asyncio.Task[Any]] = [*tasks.values(), *([changed] if changed is not None else [])]
        for one in left:
            one.cancel()
        await asyncio.gather(*left, return_exceptions=True)
