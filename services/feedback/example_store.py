"""Attribution's state: open answers with their labels, and the counters of what was shown and clicked, in SQLite.

Everything here follows from the event log. The log offset up to which it does is committed with the effects, so each
record counts exactly once; whoever removes the file gets it built again from the log. Examples that nothing can label
any more leave it for Parquet files (example_archive.py), so that what is joined is bounded by the windows.
"""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from services.feedback.attribution import AttributionRules, Labels, Outcome, ShownItem, attribute
from services.feedback.example_archive import ExampleArchive
from services.feedback.example_schema import open_database
from services.feedback.examples import ExamplePage
from services.feedback.partition import ALL, Partition
from services.feedback.records import Erasure, Feedback, Impression, LogRecord, Team
from services.feedback.sqlite_store import empty_wal, transaction
from services.feedback.variant_totals import InterleavingCounts, VariantCounts, VariantTotals
from services.runtime.scenario import EVENT_NAMES

_FIND = """
SELECT shown.answer_offset, shown.position, answers.served_time_ms, answers.model_version, shown.source, shown.clicked,
    shown.converted, shown.rating
FROM shown JOIN answers ON answers.log_offset = shown.answer_offset
WHERE shown.user_id = ? AND shown.item_id = ?
"""

# Model versions and sources come with requests: this bounds the series on /metrics and the memory for them.
MAX_COUNTERS = 2_000
_SHOWN_COUNTERS = ("impressions", "clicks", "conversions", "position_impressions", "position_clicks")


class CounterKey(NamedTuple):
    """A counter: impressions, clicks and conversions by (model_version, source), the same with the prefix variant_ by
    (experiment, variant); position_impressions and position_clicks by (model_version, place); events by
    (event, outcome); out_of_order_events by (event, ""); closed_examples by ("", "").

    An event that waits for its impression is counted under WAITING until it is decided.
    """

    name: str
    label: str
    other_label: str


class ExampleStore:
    """The examples of one scenario in `folder`/examples.db and, when closed, in files under `folder`/examples. For one
    thread at a time."""

    def __init__(self, folder: Path, rules: AttributionRules, partition: Partition = ALL) -> None:
        """SetupError when the folder holds another partition's examples."""
        self._partition = partition
        self._connection = open_database(folder, partition)
        self._archive = ExampleArchive(self._connection, folder / "examples")
        self._variants = VariantTotals(self._connection)
        self._rules = rules
        self._offset: int = self._connection.execute("SELECT log_offset FROM checkpoint").fetchone()[0]
        rows = self._connection.execute("SELECT name, label, other_label, count FROM counters")
        self._counts = {CounterKey(*row[:3]): int(row[3]) for row in rows}

    @property
    def offset(self) -> int:
        """The log offset up to which records are attributed."""
        return self._offset

    @property
    def user_share(self) -> float:
        """The share of the users that these examples are of, over 0 and at most 1."""
        return 1 / self._partition.count

    @property
    def counts(self) -> dict[CounterKey, int]:
        """All counters, as of the last commit."""
        return self._counts

    def apply(self, records: Sequence[LogRecord], now_ms: int) -> None:
        """Attribute the next records of the log, but erasures. NotReadyError when nothing can be written now."""
        with transaction(self._connection):
            added: Counter[CounterKey] = Counter()
            for offset, record in records:
                if isinstance(record, Erasure) or not self._partition.has(record.user_id):
                    continue
                if isinstance(record, Impression):
                    self._add_impression(offset, record, added)
                else:
                    self._add_feedback(offset, record, now_ms, added)
            self._connection.execute("UPDATE checkpoint SET log_offset = ?", (records[-1].offset,))
            counts = self._add_counts(added)
        self._offset, self._counts = records[-1].offset, counts

    def expire(self, now_ms: int, limit: int) -> int:
        """Decide at most `limit` events that waited long enough; returns how many there were."""
        until = now_ms - self._rules.impression_wait_ms
        query = "SELECT * FROM waiting WHERE since_ms <= ? ORDER BY since_ms LIMIT ?"
        waiting = self._connection.execute(query, (until, limit)).fetchall()
        if waiting:
            with transaction(self._connection):
                added: Counter[CounterKey] = Counter()
                for row in waiting:
                    self._settle(row, added, may_wait=False)
                counts = self._add_counts(added)
            self._counts = counts
        return len(waiting)

    def page(self, start: tuple[int, int], end_time_ms: int, limit: int) -> ExamplePage:
        """See ExampleArchive.page."""
        return self._archive.page(start, end_time_ms, limit)

    def close_answers(self, now_ms: int) -> int:
        """Move answers that nothing can label any more to a file; returns how many, 0 when there are no more of them.

        All records that the log holds by now must be attributed: one of them may be the label of such an answer.
        """
        answers = self._archive.next_to_close(now_ms - self._rules.close_after_ms)
        if answers:
            name = self._archive.write(answers)
            with transaction(self._connection):
                self._archive.close(name, answers)
                counts = self._add_counts(Counter({CounterKey("closed_examples", "", ""): sum(map(len, answers))}))
            self._counts = counts
        return len(answers)

    def remove_until(self, offset: int, limit: int) -> int:
        """Remove at most `limit` open answers and waiting events up to a log offset; returns how many of both. The
        counters stay."""
        with transaction(self._connection):
            added: Counter[CounterKey] = Counter()
            query = "SELECT * FROM waiting WHERE log_offset <= ? LIMIT ?"
            waiting = self._connection.execute(query, (offset, limit)).fetchall()
            for row in waiting:
                self._settle(row, added, may_wait=False)
            query = "SELECT log_offset FROM answers WHERE log_offset <= ? AND file IS NULL LIMIT ?"
            answers = self._connection.execute(query, (offset, limit - len(waiting))).fetchall()
            self._connection.executemany("DELETE FROM shown WHERE answer_offset = ?", answers)
            self._connection.executemany("DELETE FROM answers WHERE log_offset = ?", answers)
            self._variants.remove_until(offset)
            counts = self._add_counts(added)
        self._counts = counts
        return len(waiting) + len(answers)

    def remove_file_until(self, offset: int) -> bool:
        """See ExampleArchive.remove_file_until."""
        return self._archive.remove_file_until(offset)

    def delete_user(self, user_id: str) -> int:
        """Erase the user's examples; returns how many there were. The counters, which name nobody, stay."""
        removed = self._archive.erase_from_files(user_id)
        query = "SELECT event_kind, -count(*) FROM waiting WHERE user_id = ? GROUP BY event_kind"
        with transaction(self._connection):
            fewer = {_waiting_key(kind): count for kind, count in self._connection.execute(query, (user_id,))}
            counts = self._add_counts(Counter(fewer))
            removed += self._connection.execute("DELETE FROM shown WHERE user_id = ?", (user_id,)).rowcount
            emptied = self._archive.forget_user(user_id)
            self._connection.execute("DELETE FROM waiting WHERE user_id = ?", (user_id,))
            self._variants.delete_user(user_id)
        self._counts = counts
        self._archive.remove_files(emptied)
        empty_wal(self._connection)
        return removed

    def delete_item(self, item_id: str) -> int:
        """Erase the examples of an item, since it is a person; returns how many there were. The counters stay."""
        removed = self._archive.erase_item(item_id)
        query = "SELECT event_kind, -count(*) FROM waiting WHERE item_id = ? GROUP BY event_kind"
        with transaction(self._connection):
            fewer = {_waiting_key(kind): count for kind, count in self._connection.execute(query, (item_id,))}
            counts = self._add_counts(Counter(fewer))
            removed += self._connection.execute("DELETE FROM shown WHERE item_id = ?", (item_id,)).rowcount
            # An answer that showed nobody else has nothing left to close.
            left = "EXISTS (SELECT 1 FROM shown WHERE answer_offset = answers.log_offset)"
            self._connection.execute(f"DELETE FROM answers WHERE file IS NULL AND NOT {left}")
            self._connection.execute("DELETE FROM waiting WHERE item_id = ?", (item_id,))
        self._counts = counts
        empty_wal(self._connection)
        return removed

    def item_ids(self) -> set[str]:
        """Every item of which there is something. Reads the files."""
        query = "SELECT item_id FROM shown UNION SELECT item_id FROM waiting"
        return {item_id for (item_id,) in self._connection.execute(query)} | self._archive.item_ids()

    def user_ids(self) -> set[str]:
        """Everybody of whom there is something."""
        tables = ("answers", "waiting", "variant_users")
        query = " UNION ".join(f"SELECT user_id FROM {table}" for table in tables)
        return {user_id for (user_id,) in self._connection.execute(query)}

    def variant_counts(self, experiment: str) -> tuple[list[VariantCounts], InterleavingCounts]:
        """See VariantTotals.counts."""
        return self._variants.counts(experiment)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def has_answer(self, request_id: str) -> bool:
        """See ShownItems.has_answer."""
        query = "SELECT 1 FROM answers WHERE request_id = ?"
        return self._connection.execute(query, (request_id,)).fetchone() is not None

    def is_closed(self, request_id: str) -> bool:
        """See ShownItems.is_closed."""
        query = "SELECT 1 FROM answers WHERE request_id = ? AND file IS NOT NULL"
        return self._connection.execute(query, (request_id,)).fetchone() is not None

    def in_answer(self, request_id: str, user_id: str, item_id: str) -> ShownItem | None:
        """See ShownItems.in_answer."""
        return self._find("AND answers.request_id = ? ORDER BY shown.position", user_id, item_id, request_id)

    def newest(self, user_id: str, item_id: str, until_ms: int) -> ShownItem | None:
        """See ShownItems.newest."""
        order = "AND answers.served_time_ms <= ? ORDER BY answers.served_time_ms DESC, shown.answer_offset DESC"
        return self._find(order, user_id, item_id, until_ms)

    def _find(self, condition: str, user_id: str, item_id: str, value: str | int) -> ShownItem | None:
        row = self._connection.execute(f"{_FIND} {condition} LIMIT 1", (user_id, item_id, value)).fetchone()
        if row is None:
            return None
        *place, clicked, converted, rating = row
        return ShownItem._make((*place, Labels(bool(clicked), bool(converted), rating)))

    def _add_impression(self, offset: int, impression: Impression, added: Counter[CounterKey]) -> None:
        user_id = impression.user_id
        self._forget_expired(impression.request_id)
        self._connection.execute(
            "INSERT INTO answers (log_offset, request_id, user_id, served_time_ms, model_version, experiment, variant,"
            " rung, feature_offset, history_count) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                offset, impression.request_id, user_id, impression.served_time_ms, impression.model_version,
                impression.experiment, impression.variant, impression.rung, impression.feature_offset,
                impression.history_count,
            ),
        )  # fmt: skip
        unknown = [None] * len(impression.item_ids)
        columns = zip(
            impression.item_ids, impression.propensities, impression.sources,
            impression.teams or (Team.NEITHER,) * len(impression.item_ids), impression.scores,
            impression.retrieval_scores or unknown, impression.click_probabilities or unknown,
            impression.conversion_probabilities or unknown, impression.predicted_ratings or unknown, strict=True,
        )  # fmt: skip
        self._connection.executemany(
            "INSERT INTO shown (answer_offset, position, user_id, clicked, converted, rating, item_id, propensity,"
            " source, team, score, retrieval_score, click_probability, conversion_probability, predicted_rating)"
            " VALUES (?, ?, ?, 0, 0, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(offset, position, user_id, *values) for position, values in enumerate(columns)],
        )
        shown = self._variants.add_impression(offset, impression)
        if shown is not None:
            variant = impression.experiment, impression.variant
            added[CounterKey("variant_impressions", *variant)] += len(impression.item_ids)
            for name, change in shown._asdict().items():
                added[CounterKey(f"variant_{name}", *variant)] += change
            for name in ("variant_clicks", "variant_conversions", "variant_click_squares"):
                added[CounterKey(name, *variant)] += 0
        for position, source in enumerate(impression.sources):
            added[CounterKey("position_impressions", impression.model_version, place_of(position))] += 1
            added[CounterKey("position_clicks", impression.model_version, place_of(position))] += 0
            added[CounterKey("impressions", impression.model_version, source)] += 1
            for name in ("clicks", "conversions"):
                # Nothing clicked is a CTR of 0 and not an unknown one.
                added[CounterKey(name, impression.model_version, source)] += 0
        for row in self._connection.execute("SELECT * FROM waiting WHERE user_id = ?", (user_id,)).fetchall():
            if self._settle(row, added, may_wait=True):
                added[CounterKey("out_of_order_events", EVENT_NAMES[row[4]], "")] += 1

    def _forget_expired(self, request_id: str) -> None:
        """The log takes a request_id again once its record expired; the answer that had it may be here a little
        longer."""
        query = "SELECT log_offset, file FROM answers WHERE request_id = ?"
        for offset, file in self._connection.execute(query, (request_id,)).fetchall():
            if file is None:
                self._connection.execute("DELETE FROM shown WHERE answer_offset = ?", (offset,))
                self._connection.execute("DELETE FROM answers WHERE log_offset = ?", (offset,))
            else:
                # Its file is there until it expires as a whole. No id has a line break.
                statement = "UPDATE answers SET request_id = request_id || char(10) || log_offset WHERE log_offset = ?"
                self._connection.execute(statement, (offset,))

    def _add_feedback(self, offset: int, event: Feedback, now_ms: int, added: Counter[CounterKey]) -> None:
        # What was served so long ago that this event would be late has arrived: only fresh events wait.
        may_wait = now_ms - event.event_time_ms <= self._rules.window_ms(event.event_kind)
        if self._decide(event, added, may_wait) is Outcome.WAITING:
            row = (offset, *event, now_ms)
            self._connection.execute("INSERT INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            added[_waiting_key(event.event_kind)] += 1

    def _settle(self, row: tuple[Any, ...], added: Counter[CounterKey], may_wait: bool) -> bool:
        """Whether the waiting event is decided now."""
        event = Feedback._make(row[1:9])
        if self._decide(event, added, may_wait) is Outcome.WAITING:
            return False
        self._connection.execute("DELETE FROM waiting WHERE log_offset = ?", row[:1])
        added[_waiting_key(event.event_kind)] -= 1
        return True

    def _decide(self, event: Feedback, added: Counter[CounterKey], may_wait: bool) -> Outcome:
        outcome, shown, labels = attribute(event, self._rules, self, may_wait)
        if shown is not None and labels is not None:
            self._connection.execute(
                "UPDATE shown SET clicked = ?, converted = ?, rating = ? WHERE answer_offset = ? AND position = ?",
                (*labels, shown.answer_offset, shown.position),
            )
            for name, before, after in (
                ("clicks", shown.labels.clicked, labels.clicked),
                ("conversions", shown.labels.converted, labels.converted),
            ):
                added[CounterKey(name, shown.model_version, shown.source)] += after - before
            earned = self._variants.add_labels(shown.answer_offset, shown.position, shown.labels, labels)
            if earned is not None:
                for name in ("clicks", "conversions", "click_squares", "click_impression_products"):
                    added[CounterKey(f"variant_{name}", *earned[:2])] += getattr(earned, name)
            clicked = labels.clicked - shown.labels.clicked
            added[CounterKey("position_clicks", shown.model_version, place_of(shown.position))] += clicked
        if outcome is not Outcome.WAITING:
            added[CounterKey("events", EVENT_NAMES[event.event_kind], outcome)] += 1
        return outcome

    def _add_counts(self, added: Counter[CounterKey]) -> dict[CounterKey, int]:
        counts = dict(self._counts)
        changed = set()
        for key, count in added.items():
            if key not in counts and key.name in _SHOWN_COUNTERS and len(counts) >= MAX_COUNTERS:
                key = CounterKey(key.name, "other", "other")
            counts[key] = counts.get(key, 0) + count
            changed.add(key)
        self._connection.executemany(
            "INSERT INTO counters VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = excluded.count",
            [(*key, counts[key]) for key in changed],
        )
        return counts


def place_of(position: int) -> str:
    """The position as a label: "00" to "09" each for itself, "10-19", "20+"."""
    if position < 10:
        return f"0{position}"
    return "10-19" if position < 20 else "20+"


def _waiting_key(event_kind: int) -> CounterKey:
    return CounterKey("events", EVENT_NAMES[event_kind], Outcome.WAITING)


def now_ms() -> int:
    """The service's clock: milliseconds since 1970 UTC."""
    return int(time.time() * 1000)
