from pathlib import Path

import pytest
from pydantic import Field

from recmesh.type.v1.event_kind_pb2 import EventKind
from services.model.text import ItemFields, format_item
from services.runtime.config import Settings
from services.runtime.errors import SetupError, UnknownScenarioError
from services.runtime.scenario import EVENT_NUMBERS, ITEM_TEXT_COLUMNS, find_scenario, load_scenarios

HEAD = """
    description: Films
    events: [click, rating]
    tasks:
      click: {events: [click]}
"""


def load(tmp_path: Path, text: str):
    file = tmp_path / "scenario.yaml"
    file.write_text(text)
    return load_scenarios([file])


def scenario(extra: str = "", name: str = "video") -> str:
    return f"scenarios:\n  {name}:{HEAD}{extra}"


def test_event_numbers_are_those_of_the_proto():
    assert {f"EVENT_KIND_{name.upper()}": number for name, number in EVENT_NUMBERS.items()} == {
        name: number for name, number in EventKind.items() if number
    }


def test_the_shipped_scenario_files_load():
    files = sorted(Path("deploy/scenarios").glob("*.yaml"))
    assert files
    assert {file.stem for file in files} == set(load_scenarios(files))


class Section(Settings):
    """A section."""

    size: int = Field(default=3, ge=1)
    """A size."""


def test_every_column_that_a_template_may_name_is_formatted():
    fields = ItemFields("T", "D", ("C",), "B", 2.5, 0, {"mood": "M"})
    template = " ".join(f"{{{name}}}" for name in (*ITEM_TEXT_COLUMNS, "attributes.mood"))
    assert format_item(template, fields) == "T D C B 2.50 1970 M"


def test_a_section_is_parsed_by_its_owner(tmp_path):
    video = load(tmp_path, scenario("    ranking: {size: 5}\n"))["video"]
    assert video.section("ranking", Section).size == 5
    assert video.section("feature", Section).size == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "one map named 'scenarios'"),
        ("scenarios: {}", "no scenario file given"),
        ("scenarios: [video]", "one map named 'scenarios'"),
        (scenario() + "\nimage: x\n", "one map named 'scenarios'"),
        (scenario(name="Video"), "a scenario's name"),
        ("scenarios:\n  video: 3\n", "must be a map"),
        (scenario("    rankng: {size: 5}\n"), "rankng: unknown setting"),
        (scenario("    blend: {rating: 1}\n"), "blend.rating weighs a task"),
        (scenario().replace("[click]", "[play]"), "which is not in events"),
        (scenario().replace("[click, rating]", "[clik]"), "events.0"),
        (scenario().replace("{events: [click]}", "{events: [click], min_value: .nan}"), "min_value"),
        (scenario("    tasks: {a: [}"), "cannot be read as YAML"),
        (scenario("    catalogue: {item_text: '{titel}'}\n"), "catalogue.item_text: Value error, names 'titel'"),
        (scenario("    catalogue: {item_text: '{title'}\n"), "catalogue.item_text"),
        (scenario("    catalogue: {item_text: film}\n"), "names no column"),
        (scenario("    catalogue: {item_text: '{title:>9}'}\n"), "no effect"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_setting(tmp_path, text, message):
    with pytest.raises(SetupError, match=r"scenario\.yaml|no scenario file") as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


def test_a_wrong_section_names_file_scenario_section_and_setting(tmp_path):
    video = load(tmp_path, scenario("    ranking: {size: 0, sice: 1}\n"))["video"]
    with pytest.raises(SetupError, match=r"scenario.yaml: scenarios.video.ranking: size: .*; sice: unknown setting"):
        video.section("ranking", Section)


def test_a_scenario_given_twice_is_refused(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(scenario())
    with pytest.raises(SetupError, match="already"):
        load_scenarios([file, file])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SetupError, match=r"none.yaml: no such file"):
        load_scenarios([tmp_path / "none.yaml"])


def test_an_unknown_scenario_is_refused_with_the_known_ones():
    with pytest.raises(UnknownScenarioError, match="'vide' is not configured here; configured: music, video"):
        find_scenario({"video": 1, "music": 2}, "vide")
