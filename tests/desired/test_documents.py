"""All documents of a revision together: who counts, what is kept of the past, what makes submissions wait."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from reconciler.desired.documents import Collection, collect, not_a_plain_file
from reconciler.desired.yaml.reader import parse_file
from reconciler.model.manifests import GoodManifest, Manifest, ParsedFile

PROJECT = "apiVersion: reconciler/v1\nkind: Project\nmetadata: {name: p}\nspec: {}\n"
HEAD = "apiVersion: reconciler/v1\nkind: KIND\nmetadata: {name: NAME}\n"
FLOW = HEAD + "spec: {jobs: [{id: a, function: m.f}]}\n"
RULE = HEAD + "spec: {set: {priority: 1}}\n"


def flow(name: str, text: str = FLOW) -> str:
    return text.replace("KIND", "Flow").replace("NAME", name)


def rule(name: str, text: str = RULE) -> str:
    return text.replace("KIND", "OverrideRule").replace("NAME", name)


class Revisions:
    """Commits one revision after the other, each given as {file: text}, and remembers what was good."""

    def __init__(self) -> None:
        self.good: Mapping[str, GoodManifest] = {}
        self.blobs: dict[str, ParsedFile] = {}

    def commit(self, files: Mapping[str, str | bytes | ParsedFile]) -> Collection:
        found = {"reconciler.yaml": PROJECT, **files}
        parsed = {}
        for file, text in found.items():
            blob = f"blob-{hash((file, str(text)))}"
            data = text.encode() if isinstance(text, str) else text
            self.blobs[blob] = data if isinstance(data, ParsedFile) else parse_file(data)
            parsed[file] = (blob, self.blobs[blob])
        collection = collect(parsed, self.good, self.blobs.get)
        self.good = collection.good
        return collection


@pytest.fixture
def revisions() -> Revisions:
    return Revisions()


def keys(collection: Collection) -> set[str]:
    return set(collection.manifests)


def codes(collection: Collection) -> list[str]:
    return [diagnostic.code for diagnostic in collection.diagnostics]


def test_all_valid_documents_are_used(revisions: Revisions) -> None:
    found = revisions.commit({"flows/a.yaml": flow("a") + "---\n" + flow("b"), "rules/r.yaml": rule("r")})
    assert keys(found) == {"Project/p", "Flow/a", "Flow/b", "OverrideRule/r"}
    assert (found.stale, found.hold_reasons, found.diagnostics) == (set(), [], [])


def test_identity_is_kind_and_name_never_the_file(revisions: Revisions) -> None:
    revisions.commit({"flows/a.yaml": flow("a")})
    found = revisions.commit({"flows/other.yaml": rule("a") + "---\n" + flow("a")})
    assert keys(found) == {"Project/p", "Flow/a", "OverrideRule/a"}
    assert (found.manifests["Flow/a"].file, found.stale) == ("flows/other.yaml", set())


def test_removed_document_is_gone(revisions: Revisions) -> None:
    revisions.commit({"flows/a.yaml": flow("a"), "flows/b.yaml": flow("b")})
    found = revisions.commit({"flows/b.yaml": flow("b")})
    assert keys(found) == {"Project/p", "Flow/b"}
    assert found.good.keys() == keys(found)


class TestDuplicates:
    def test_both_are_refused_and_both_places_named(self, revisions: Revisions) -> None:
        found = revisions.commit({"flows/a.yaml": flow("a"), "flows/b.yaml": flow("a")})
        assert keys(found) == {"Project/p"}
        assert codes(found) == ["manifest/duplicate"] * 2
        assert [str(one.location) for one in found.diagnostics] == ["flows/a.yaml:3:18", "flows/b.yaml:3:18"]
        assert [str(one.related[0].location) for one in found.diagnostics] == [
            "flows/b.yaml:3:18", "flows/a.yaml:3:18",
        ]  # fmt: skip
        assert found.invalid_flows == {"a": "2 documents have this kind and name"}

    def test_last_good_version_is_kept(self, revisions: Revisions) -> None:
        revisions.commit({"flows/a.yaml": flow("a")})
        found = revisions.commit({"flows/a.yaml": flow("a"), "flows/b.yaml": flow("a")})
        assert found.stale == {"Flow/a"}
        assert found.manifests["Flow/a"].file == "flows/a.yaml"


class TestSecondProject:
    @pytest.mark.parametrize("name", ["a-first-by-name", "z-last-by-name"])
    def test_that_of_reconciler_yaml_counts(self, revisions: Revisions, name: str) -> None:
        found = revisions.commit({"flows/a.yaml": PROJECT.replace("name: p", f"name: {name}")})
        assert keys(found) == {"Project/p"}
        assert codes(found) == ["manifest/second-project"]
        assert str(found.diagnostics[0].location) == "flows/a.yaml:3:18"
        assert str(found.diagnostics[0].related[0].location) == "reconciler.yaml:3:18"

    def test_none_holds_everything(self, revisions: Revisions) -> None:
        found = revisions.commit({"reconciler.yaml": "# nothing\n", "flows/a.yaml": flow("a")})
        assert found.project is None
        assert found.hold_reasons == ["this revision does not have a valid Project"]


INVALID_FLOWS = {
    "unreadable": flow("a") + "\t- [",
    "schema": flow("a").replace("jobs", "jbos"),
    "no name": flow("a").replace("metadata", "metdata"),
    "kind": flow("a").replace("Flow", "Flwo"),
    "no kind": flow("a").replace("kind: Flow\n", ""),
    "renamed and wrong": flow("b").replace("jobs", "jbos"),
    "no YAML at all": b"\x00\x01\x02",
}


@pytest.mark.parametrize("text", INVALID_FLOWS.values(), ids=INVALID_FLOWS)
def test_flow_keeps_its_last_good_version(revisions: Revisions, text: str | bytes) -> None:
    good = revisions.commit({"flows/a.yaml": flow("a")})
    for _ in range(2):  # and again in the next revision
        found = revisions.commit({"flows/a.yaml": text})
        assert found.manifests["Flow/a"] == good.manifests["Flow/a"]
        assert found.stale == {"Flow/a"}
        assert "a" in found.invalid_flows
        assert found.hold_reasons == [], "a flow never makes others wait"
        assert found.diagnostics


@pytest.mark.parametrize("what", ["symlink", "submodule"])
def test_flow_whose_file_is_no_file_any_more(revisions: Revisions, what: str) -> None:
    revisions.commit({"flows/a.yaml": flow("a")})
    found = revisions.commit({"flows/a.yaml": not_a_plain_file(what)})
    assert found.stale == {"Flow/a"}
    assert codes(found) == [f"source/{what}"]
    assert str(found.diagnostics[0].location) == "flows/a.yaml:1:1"


def test_other_documents_of_a_file_are_used_as_they_are(revisions: Revisions) -> None:
    revisions.commit({"flows/a.yaml": flow("a") + "---\n" + flow("b")})
    found = revisions.commit({"flows/a.yaml": flow("a").replace("m.f", "m.g") + "---\n" + flow("b") + "\t["})
    assert found.stale == {"Flow/b"}
    assert found.manifests["Flow/a"].spec["jobs"][0]["function"] == "m.g"


class TestMovedAndBroken:
    def test_a_new_file_that_cannot_be_read_may_be_the_old_one(self, revisions: Revisions) -> None:
        revisions.commit({"flows/a.yaml": flow("a")})
        found = revisions.commit({"flows/b.yaml": "\t" + flow("a")})
        assert found.stale == {"Flow/a"}
        assert "flows/b.yaml" in found.invalid_flows["a"]

    def test_a_document_with_a_name_of_its_own_is_not(self, revisions: Revisions) -> None:
        revisions.commit({"flows/a.yaml": flow("a")})
        found = revisions.commit({"flows/b.yaml": flow("b").replace("jobs", "jbos")})
        assert found.stale == set()
        assert set(found.invalid_flows) == {"b"}

    def test_a_file_that_was_broken_all_the_time_is_not(self, revisions: Revisions) -> None:
        revisions.commit({"flows/a.yaml": flow("a"), "flows/b.yaml": flow("b")})
        revisions.commit({"flows/a.yaml": flow("a"), "flows/b.yaml": "\t" + flow("b")})
        found = revisions.commit({"flows/b.yaml": "\t" + flow("b")})
        assert found.stale == {"Flow/b"}


INVALID_RULES = {
    "unreadable": rule("r") + "\t- [",
    "schema": rule("r").replace("set", "sett"),
    "no name": rule("r").replace("metadata", "metdata"),
    "kind": rule("r").replace("OverrideRule", "OverrdeRule"),
    "no kind": rule("r").replace("kind: OverrideRule\n", ""),
    "encoding": rule("r").encode("utf-16"),
    "duplicate": rule("r") + "---\n" + rule("r"),
    "symlink": not_a_plain_file("symlink"),
}


@pytest.mark.parametrize("text", INVALID_RULES.values(), ids=INVALID_RULES)
class TestInvalidRule:
    def test_new_one_makes_submissions_wait(
        self, revisions: Revisions, text: str | bytes | ParsedFile
    ) -> None:
        found = revisions.commit({"rules/r.yaml": text})
        assert len(found.hold_reasons) == 1, found.hold_reasons

    def test_known_one_keeps_its_last_good_version(
        self, revisions: Revisions, text: str | bytes | ParsedFile
    ) -> None:
        good = revisions.commit({"rules/r.yaml": rule("r")})
        found = revisions.commit({"rules/r.yaml": text})
        assert found.stale == {"OverrideRule/r"}
        assert found.manifests["OverrideRule/r"] == good.manifests["OverrideRule/r"]


def test_rule_added_to_a_file_that_breaks_makes_submissions_wait(revisions: Revisions) -> None:
    """The flow of the file keeps its version, but what the new rule says nobody knows."""
    revisions.commit({"flows/a.yaml": flow("a")})
    found = revisions.commit({"flows/a.yaml": flow("a") + "\t[\n---\n" + rule("new")})
    assert found.stale <= {"Flow/a"}
    assert len(found.hold_reasons) == 1


def test_unreadable_flow_never_holds_others(revisions: Revisions) -> None:
    assert revisions.commit({"flows/new.yaml": flow("a") + "\t["}).hold_reasons == []
    assert revisions.commit({"flows/new.yaml": b"\xff\xfe\x00"}).hold_reasons == []
    assert revisions.commit({"flows/new.yaml": "a: 1\n"}).hold_reasons == []


def test_a_job_is_found_by_its_id_wherever_it_stands() -> None:
    text = b"""apiVersion: reconciler/v1
kind: Flow
metadata: {name: f}
spec:
  jobs:
    - {id: new, function: m.f}
    - id: relax
      function: m.f
      priority: 3
"""
    manifest = Manifest("flows/f.yaml", parse_file(text).documents[0])
    assert str(manifest.location("/spec/jobs/id=relax/priority")) == "flows/f.yaml:9:17"
    assert str(manifest.location("/spec/jobs/id=gone/priority")) == "flows/f.yaml:6:5"
