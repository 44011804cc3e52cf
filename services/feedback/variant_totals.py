"""What each user of an experiment was shown and did, by variant; in the examples' database and its transactions.

A user's row holds sums over the user's answers, so that a variant's second moments over users are sums over rows. Rows
go with their user, and with the last of the user's answers that retention removes.
"""

import sqlite3
from typing import NamedTuple

from services.feedback.attribution import Labels
from services.feedback.records import Impression, Team

SCHEMA = """
CREATE TABLE IF NOT EXISTS variant_users (
    experiment TEXT NOT NULL, variant TEXT NOT NULL, user_id TEXT NOT NULL, last_offset INTEGER NOT NULL,
    impressions INTEGER NOT NULL, clicks INTEGER NOT NULL, conversions INTEGER NOT NULL,
    interleaved INTEGER NOT NULL, first_wins INTEGER NOT NULL, second_wins INTEGER NOT NULL,
    PRIMARY KEY (experiment, variant, user_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS variant_users_by_user ON variant_users (user_id);
CREATE INDEX IF NOT EXISTS variant_users_by_offset ON variant_users (last_offset);
"""

_COUNTS = """
SELECT variant, sum(impressions > 0), sum(clicks > 0), sum(impressions), sum(clicks), sum(conversions),
    sum(impressions * impressions), sum(clicks * clicks), sum(conversions * conversions),
    sum(clicks * impressions), sum(conversions * clicks)
FROM variant_users WHERE experiment = ? GROUP BY variant ORDER BY variant
"""

# A user who changed from one variant to the other is one user here.
_INTERLEAVING = """
SELECT ifnull(sum(f), 0), ifnull(sum(w - f), 0), ifnull(sum(answers - w), 0), ifnull(sum(w > 0), 0),
    ifnull(sum(f * f), 0), ifnull(sum(f * w), 0), ifnull(sum(w * w), 0)
FROM (
    SELECT sum(first_wins) AS f, sum(first_wins + second_wins) AS w, sum(interleaved) AS answers
    FROM variant_users WHERE experiment = ? GROUP BY user_id
)
"""


class VariantCounts(NamedTuple):
    """Sums over a variant's users, each with m shown items, c of them clicked and v of these converted, in answers that
    are the variant's alone."""

    variant: str
    user_count: int
    """Users with m > 0."""
    clicking_user_count: int
    """Users with c > 0."""
    impression_count: int
    click_count: int
    conversion_count: int
    impression_squares: int
    click_squares: int
    conversion_squares: int
    click_impression_products: int
    conversion_click_products: int


class Shown(NamedTuple):
    """What a variant's sums change by with an answer."""

    users: int
    impression_squares: int
    click_impression_products: int


class Earned(NamedTuple):
    """What a variant's counts and sums change by with a label."""

    experiment: str
    variant: str
    clicks: int
    conversions: int
    """Clicked items that are converted, too: at most as many as clicked ones."""
    click_squares: int
    click_impression_products: int


class InterleavingCounts(NamedTuple):
    """Interleaved answers by the team with more clicks. A user has f that the first team won and w that either won."""

    first_win_count: int
    second_win_count: int
    tie_count: int
    user_count: int
    """Users with w > 0."""
    first_win_squares: int
    first_win_products: int
    """Σf·w."""
    win_squares: int


class VariantTotals:
    """The totals of one scenario. The caller holds the transaction that each change belongs to."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.executescript(SCHEMA)

    def add_impression(self, offset: int, impression: Impression) -> Shown | None:
        """Count an answer that was shown. Returns the change for one that is a variant's alone."""
        if not impression.experiment:
            return None
        interleaved = bool(impression.teams)
        row = self._connection.execute(
            "INSERT INTO variant_users VALUES (?, ?, ?, ?, ?, 0, 0, ?, 0, 0) ON CONFLICT DO UPDATE SET"
            " last_offset = excluded.last_offset, impressions = impressions + excluded.impressions,"
            " interleaved = interleaved + excluded.interleaved RETURNING impressions, clicks",
            (
                impression.experiment,
                impression.variant,
                impression.user_id,
                offset,
                0 if interleaved else len(impression.item_ids),
                int(interleaved),
            ),
        ).fetchone()
        if interleaved:
            return None
        impressions, clicks = row
        before = impressions - len(impression.item_ids)
        return Shown(
            users=int(before == 0 < impressions),
            impression_squares=impressions**2 - before**2,
            click_impression_products=clicks * (impressions - before),
        )

    def add_labels(self, answer_offset: int, position: int, before: Labels, after: Labels) -> Earned | None:
        """Count what a shown item's labels have changed by, after the change is in the table `shown`.

        Returns it for an answer that is a variant's alone.
        """
        query = "SELECT experiment, variant, user_id FROM answers WHERE log_offset = ?"
        experiment, variant, user_id = self._connection.execute(query, (answer_offset,)).fetchone()
        if not experiment:
            return None
        clicks = after.clicked - before.clicked
        conversions = (after.clicked and after.converted) - (before.clicked and before.converted)
        interleaved = self._is_interleaved(answer_offset)
        changed = {"clicks": clicks, "conversions": conversions}
        if interleaved:
            changed = self._change_of_winner(answer_offset, position, clicks)
        sets = ", ".join(f"{name} = {name} + {count}" for name, count in changed.items())
        row = self._connection.execute(
            f"UPDATE variant_users SET {sets} WHERE experiment = ? AND variant = ? AND user_id = ?"
            " RETURNING impressions, clicks",
            (experiment, variant, user_id),
        ).fetchone()
        if interleaved:
            return None
        shown, clicked = row or (0, 0)
        squares = clicked**2 - (clicked - clicks) ** 2
        return Earned(experiment, variant, clicks, conversions, squares, shown * clicks)

    def counts(self, experiment: str) -> tuple[list[VariantCounts], InterleavingCounts]:
        """What an experiment's variants have earned, by name; and what its interleaved answers say."""
        variants = [VariantCounts._make(row) for row in self._connection.execute(_COUNTS, (experiment,))]
        return variants, InterleavingCounts._make(self._connection.execute(_INTERLEAVING, (experiment,)).fetchone())

    def delete_user(self, user_id: str) -> None:
        """Forget the user."""
        self._connection.execute("DELETE FROM variant_users WHERE user_id = ?", (user_id,))

    def remove_until(self, offset: int) -> None:
        """Forget users whose answers are all at or before a log offset."""
        self._connection.execute("DELETE FROM variant_users WHERE last_offset <= ?", (offset,))

    def _is_interleaved(self, answer_offset: int) -> bool:
        query = "SELECT 1 FROM shown WHERE answer_offset = ? AND team != 0"
        return self._connection.execute(query, (answer_offset,)).fetchone() is not None

    def _change_of_winner(self, answer_offset: int, position: int, clicks: int) -> dict[str, int]:
        query = "SELECT team, sum(clicked) FROM shown WHERE answer_offset = ? GROUP BY team"
        now = dict(self._connection.execute(query, (answer_offset,)).fetchall())
        query = "SELECT team FROM shown WHERE answer_offset = ? AND position = ?"
        (team,) = self._connection.execute(query, (answer_offset, position)).fetchone()
        earlier = now | {team: now[team] - clicks}
        before, after = _winner(earlier), _winner(now)
        return {
            f"{name}_wins": (after is place) - (before is place)
            for name, place in (("first", Team.FIRST), ("second", Team.SECOND))
        }


def _winner(clicks: dict[int, int]) -> Team | None:
    """The team with more clicks."""
    first, second = clicks.get(Team.FIRST, 0), clicks.get(Team.SECOND, 0)
    if first == second:
        return None
    return Team.FIRST if first > second else Team.SECOND
