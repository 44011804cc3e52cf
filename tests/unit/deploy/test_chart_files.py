from pathlib import Path

from deploy.chart_files import CHART_FILES, copy_all, stale_copies


def test_the_charts_copies_are_current() -> None:
    assert stale_copies() == [], "run: make observability"
    assert {path.name for path in CHART_FILES.iterdir()} == {"rules", "dashboards"}


def test_changed_missing_and_surplus_copies_are_mended(tmp_path: Path) -> None:
    copy_all(tmp_path)
    changed, missing, surplus = (tmp_path / "rules" / name for name in ("calls.yaml", "feedback.yaml", "old.yaml"))
    changed.write_text("other")
    missing.unlink()
    surplus.write_text("groups: []")
    assert stale_copies(tmp_path) == [changed, missing, surplus]
    copy_all(tmp_path)
    assert stale_copies(tmp_path) == []
