"""Walks every setting of every section: each is documented, refused when misspelt, and read by somebody."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from services.cli.settings_check import SECTION_SETTINGS, check_sections
from services.runtime.config import Settings
from services.runtime.errors import SetupError
from services.runtime.scenario import SECTIONS, Scenario, ScenarioHead, load_scenarios

ROOT = Path(__file__).parents[3]
HEAD = {"description": "x", "events": ["click"], "tasks": {"click": {"events": ["click"]}}}


def nested(annotation: Any) -> list[type[Settings]]:
    """Settings classes in a field's type, e.g. in `PartSettings | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [kind for argument in get_args(annotation) for kind in nested(argument)]


def walk(kind: type[Settings], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    for name, field in kind.model_fields.items():
        yield (*path, name), field
        for inner in nested(field.annotation):
            yield from walk(inner, (*path, name))


ALL = list(walk(ScenarioHead, ())) + [entry for name, kind in SECTION_SETTINGS.items() for entry in walk(kind, (name,))]


LISTS = {path for path, field in ALL if get_origin(field.annotation) is tuple and nested(field.annotation)}
"""Settings that hold a list of groups."""

SOURCES = [
    ast.parse(path.read_text())
    for folder in ("services", "deploy")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "settings_check.py"
]


def outside_settings_classes(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes below `node` without those of the classes that declare and check the settings themselves."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and child.name.endswith("Settings"):
            continue
        yield child
        yield from outside_settings_classes(child)


NODES = [node for tree in SOURCES for node in outside_settings_classes(tree)]
READ = {node.attr for node in NODES if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
NAMED = {node.value for node in NODES if isinstance(node, ast.Constant) and isinstance(node.value, str)}
LOOKED_UP = {("candidate", "quotas"), ("triton",)}
"""Groups whose settings are looked up by the name of a source or a part, not read as attributes."""


def test_every_section_has_an_owner() -> None:
    # The chart checks its own section by its schema.
    assert set(SECTION_SETTINGS) | {"kubernetes"} == set(SECTIONS)


@pytest.mark.parametrize(("path", "field"), ALL, ids=[".".join(path) for path, _ in ALL])
def test_every_setting_is_documented_and_read(path: tuple[str, ...], field: FieldInfo) -> None:
    assert field.description, "no docstring under the setting"
    used = NAMED if path[:-1] in LOOKED_UP and path[-1] not in READ else READ
    assert path[-1] in used, "nobody reads it"


@pytest.mark.parametrize("path", [path for path, _ in ALL], ids=".".join)
def test_every_misspelt_setting_is_refused(path: tuple[str, ...]) -> None:
    *parents, name = path
    values: dict[str, Any] = {}
    inner = values
    for depth, parent in enumerate(parents, start=1):
        below: dict[str, Any] = {}
        inner[parent] = [below] if path[:depth] in LISTS else below
        inner = below
    inner[f"{name}x"] = 1
    with pytest.raises(SetupError, match=rf"video\.yaml.*{name}x: unknown setting"):
        check_sections(Scenario("video", _merge(HEAD, values), "video.yaml"))


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in change.items():
        old = merged.get(name)
        merged[name] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


@pytest.mark.parametrize("file", sorted((ROOT / "deploy" / "scenarios").glob("*.yaml")), ids=lambda file: file.name)
def test_the_shipped_scenarios_are_right(file: Path) -> None:
    for scenario in load_scenarios([file]).values():
        check_sections(scenario)


def test_an_owners_own_check_runs_too() -> None:
    values = HEAD | {"candidate": {"popular_events": ["purchase"]}}
    with pytest.raises(SetupError, match="popular_events names 'purchase'"):
        check_sections(Scenario("video", values, "video.yaml"))
