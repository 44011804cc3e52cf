"""What the tests of `recmesh experiment` share."""

import pytest

from services.cli.state import StateFolder


@pytest.fixture
def state(tmp_path):
    """A state folder in which a current version and one beside it serve."""
    folder = StateFolder(tmp_path)
    (folder.models / "video").mkdir(parents=True)
    (folder.models / "video" / "CURRENT").write_text("v1\n")
    (folder.models / "video" / "VARIANTS").write_text("v2\n")
    return folder
