"""What the settings of the engine milvus refuse, and what they mean."""

import re
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.candidate.config import IndexSettings
from services.candidate.engines import make_engine
from services.candidate.faiss_index import FaissEngine
from services.candidate.milvus_settings import MilvusIndexSettings
from services.runtime.config import parse_settings
from services.runtime.errors import SetupError
from tests.support.milvus_process import needs_milvus
from tests.support.tiny_bundle import make_tiny_bundle

URI = "http://milvus:19530"

REFUSED = {
    "engine alone": ({"engine": "milvus"}, "engine milvus needs milvus"),
    "settings without the engine": ({"milvus": {"uri": URI}}, "no other engine reads it"),
    "another engine": ({"engine": "annoy"}, "engine: Input should be 'faiss' or 'milvus'"),
    "no uri": ({"engine": "milvus", "milvus": {}}, "milvus.uri: Field required"),
    "a file": ({"engine": "milvus", "milvus": {"uri": "milvus.db"}}, "milvus.uri: "),
    "user alone": ({"engine": "milvus", "milvus": {"uri": URI, "user": "me"}}, "user and password_file, or neither"),
    "both logins": (
        {"engine": "milvus", "milvus": {"uri": URI, "user": "me", "password_file": "p", "token_file": "t"}},
        "not both",
    ),
    "authority without TLS": ({"engine": "milvus", "milvus": {"uri": URI, "ca_file": "ca"}}, "ca_file needs an uri"),
    "prefix": ({"engine": "milvus", "milvus": {"uri": URI, "collection_prefix": "a-b"}}, "milvus.collection_prefix: "),
    "kind": ({"engine": "milvus", "milvus": {"uri": URI, "index": {"kind": "hnsw"}}}, "milvus.index.kind: "),
    "another kind's parameter": (
        {"engine": "milvus", "milvus": {"uri": URI, "index": {"kind": "IVF_FLAT", "search": {"ef": 9}}}},
        "search: IVF_FLAT has no parameter ef; it has nprobe",
    ),
    "misspelt": (
        {"engine": "milvus", "milvus": {"uri": URI, "index": {"build": {"m": 9}}}},
        "build: HNSW has no parameter m; it has M, efConstruction",
    ),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_settings_are_refused_by_name(values, message):
    with pytest.raises(SetupError, match=re.escape(message)):
        parse_settings(IndexSettings, values, "file: index")


def test_a_graph_is_searched_for_at_least_as_many_as_are_wanted():
    settings = MilvusIndexSettings()
    assert settings.build_parameters == {"M": 32, "efConstruction": 200}
    assert (settings.search_parameters(10), settings.search_parameters(700)) == ({"ef": 128}, {"ef": 700})
    own = MilvusIndexSettings(kind="IVF_SQ8", build={"nlist": 64}, search={"nprobe": 8})
    assert (own.build_parameters, own.search_parameters(700)) == ({"nlist": 64}, {"nprobe": 8})


def test_faiss_is_the_default_and_needs_no_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    assert isinstance(make_engine(IndexSettings()), FaissEngine)


def test_a_missing_client_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "services.candidate.milvus_index", None)
    with pytest.raises(SetupError, match=r"install recmesh\[milvus\]"):
        make_engine(IndexSettings(engine="milvus", milvus={"uri": URI}))


@needs_milvus
@pytest.mark.parametrize(
    ("own", "name"),
    [
        ({"token_file": "none"}, "token_file"),
        ({"user": "me", "password_file": "none"}, "password_file"),
        ({"uri": "https://milvus:19530", "ca_file": "none"}, "ca_file"),
    ],
)
def test_missing_files_are_named(tmp_path, own, name):
    files = {key: str(tmp_path / value) if value == "none" else value for key, value in own.items()}
    with pytest.raises(SetupError, match=f"index.milvus.{name}"):
        make_engine(IndexSettings(engine="milvus", milvus={"uri": URI, **files}))


@needs_milvus
class TestNames:
    """Of collections."""

    @given(st.lists(st.text("aA0-._", min_size=1, max_size=4), min_size=3, max_size=3))
    def test_they_are_milvus_names_and_tell_all_apart(self, parts):
        from services.candidate.milvus_collection import collection_name

        def name(*changed):
            scenario, version, checksum = map(str.__add__, parts, changed)
            files = {"item_vectors.npy": SimpleNamespace(sha256=checksum)}
            manifest = SimpleNamespace(scenario=scenario, model_version=version, files=files)
            return collection_name("recmesh", manifest)

        names = [name("", "", ""), name("-", "", ""), name("", ".", ""), name("", "", "a")]
        assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", one) for one in names)
        assert len(set(names)) == 4


@needs_milvus
def test_an_engine_opens_a_bundle_without_its_server(tmp_path):
    bundle = make_tiny_bundle(tmp_path, items=20)
    index = make_engine(IndexSettings(engine="milvus", milvus={"uri": "http://127.0.0.1:1"})).open(bundle)
    assert (len(index), index.ready) == (20, False)
