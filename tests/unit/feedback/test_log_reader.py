from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from services.feedback.log_reader import ATTRIBUTION, TAIL, LogReader
from services.feedback.records import Feedback, LogRecord

RECORD = Feedback("e", "anna", "alien", 1, 0, None, "", None)


class Log:
    """Holds records at some offsets; the lower ones expired."""

    def __init__(self, offsets: Sequence[int], expired_offset: int) -> None:
        self.offsets = offsets
        self.expired_offset = expired_offset

    async def read(self, after_offset: int, limit: int) -> list[LogRecord]:
        return [LogRecord(offset, RECORD) for offset in self.offsets if offset > after_offset][:limit]


async def test_a_consumer_behind_the_retention_is_counted_once() -> None:
    log = Log(range(8, 12), expired_offset=7)
    reader = LogReader("video", log)  # type: ignore[arg-type]
    assert [entry.offset for entry in await reader.read(TAIL, 4, 2)] == [8, 9]
    assert [entry.offset for entry in await reader.read(TAIL, 9, 2)] == [10, 11]
    assert reader.missed_offsets == {TAIL: 3}
    await reader.read(ATTRIBUTION, 0, 10)
    assert reader.missed_offsets[ATTRIBUTION] == 0, "who begins at the start asks for what there is"


@given(
    offsets=st.sets(st.integers(1, 40)), expired=st.integers(0, 20), start=st.integers(1, 30), limit=st.integers(1, 9)
)
async def test_every_expired_offset_after_the_start_is_missed_once_however_it_is_read(
    offsets: set[int], expired: int, start: int, limit: int
) -> None:
    kept = sorted(offset for offset in offsets if offset > expired)
    reader = LogReader("video", Log(kept, expired))  # type: ignore[arg-type]
    place = start
    while records := await reader.read(TAIL, place, limit):
        place = records[-1].offset
    expected = max(0, expired - start) if any(offset > start for offset in kept) else 0
    assert reader.missed_offsets[TAIL] == expected
