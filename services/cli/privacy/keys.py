"""The key of the pseudonyms in a state folder."""

from pathlib import Path

from services.cli.state import StateFolder
from services.runtime.errors import SetupError
from services.runtime.pseudonym import Pseudonyms, make_key, read_key


def ensure_key(state: StateFolder) -> None:
    """Make the key where there is none. SetupError when it cannot be used, or when stores were filled without it."""
    if state.key.exists():
        read_key(state.key)
        return
    stores = (state.root / "feedback", state.root / "feature", state.spool)
    filled = [store.name for store in stores if any(path.is_file() for path in store.rglob("*"))]
    if filled:
        raise SetupError(
            f"{state.root}: {', '.join(filled)} hold users' ids as they came, from before there were pseudonyms; move "
            "feedback, feature, spool and seed away: the next start sends the tables again. Feedback that came since "
            "is kept only if the version that wrote it puts it into the tables first (`recmesh data append`)"
        )
    make_key(state.key)


def read_pseudonyms(state: StateFolder, scenario: str) -> Pseudonyms:
    """Those of the state folder's key; while there is none yet, no store has been filled and ids stand as they are."""
    return Pseudonyms(read_key(state.key) if state.key.exists() else None, scenario)


def known_scenarios(state: StateFolder) -> list[str]:
    """Scenarios of which the state folder holds anything."""
    folders: list[Path] = [state.root / name for name in ("data", "feedback", "feature", "models")]
    return sorted({path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()})
