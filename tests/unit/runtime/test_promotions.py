from services.runtime.promotions import (
    PROMOTIONS,
    Check,
    Promotion,
    append_promotion,
    count_outcomes,
    open_promotion,
    read_promotions,
)


def line(version, outcome, **more):
    return Promotion(time="2026-01-01T00:00:00+00:00", version=version, base="v1", outcome=outcome, reason="so", **more)


def test_lines_come_back_as_they_were_written(tmp_path):
    (tmp_path / "video").mkdir()
    check = Check(name="drift", verdict="fail", reason="PSI 3", figures={"psi": 3.0, "ks": None, "predictions": 7})
    lines = [line("v2", "refused", checks=[check]), line("v2", "forced", experiment="canary-1")]
    for one in lines:
        append_promotion(tmp_path, "video", one)
    assert read_promotions(tmp_path, "video") == lines
    assert count_outcomes(tmp_path, "video") == {"refused": 1, "forced": 1}
    assert read_promotions(tmp_path, "music") == []


def test_a_line_that_was_cut_off_costs_no_other(tmp_path, caplog):
    (tmp_path / "video").mkdir()
    append_promotion(tmp_path, "video", line("v2", "passed"))
    with (tmp_path / "video" / PROMOTIONS).open("a") as file:
        file.write('{"time": "2026-')
    append_promotion(tmp_path, "video", line("v3", "refused"))
    assert [promotion.version for promotion in read_promotions(tmp_path, "video")] == ["v2", "v3"]
    assert [record.line for record in caplog.records] == [2]


def test_a_version_is_on_its_way_until_its_canary_ends():
    assert open_promotion([]) is None
    assert open_promotion([line("v2", "refused")]) is None
    passed = [line("v2", "passed"), line("v3", "refused")]
    assert open_promotion(passed).version == "v2"
    assert open_promotion([*passed, line("v2", "rolled_back")]) is None
    assert open_promotion([*passed, line("v2", "promoted"), line("v4", "forced")]).version == "v4"
