"""Who set a value: right also when the file was moved, rules put in another order, lines only reindented."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reconciler.desired.source.git import Source
from reconciler.desired.source.history import Authors, Causes, CommitInfo
from reconciler.desired.yaml.reader import parse_file
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import Manifest, ParsedFile
from reconciler.model.settings import Level, Origin
from tests.support import Repository

ANN, BO, CY = ("Ann <ann@example.invalid>", "Bo <bo@example.invalid>", "Cy <cy@example.invalid>")
PRIORITY = "/spec/set/priority"


def rule(name: str, priority: int, **spec: object) -> str:
    more = "".join(f"  {key}: {value}\n" for key, value in spec.items())
    return (
        f"apiVersion: reconciler/v1\nkind: OverrideRule\nmetadata: {{name: {name}}}\nspec:\n{more}"
        f"  set:\n    priority: {priority}\n"
    )


@pytest.fixture
def source(repository: Repository) -> Source:
    return Source(repository.path / ".git", repository.path, None, "")


@pytest.fixture
def authors(source: Source) -> Authors:
    def parsed(blob: str) -> ParsedFile | None:
        return next((parse_file(data) for _, data in source.blobs([blob])), None)

    return Authors(source, parsed)


@pytest.fixture
def who(source: Source, authors: Authors) -> Callable[..., CommitInfo | None]:
    """Return who set a value of a rule, by HEAD."""

    def ask(name: str, pointer: str = PRIORITY) -> CommitInfo | None:
        commit = source.revision().commit
        return authors.of(commit, manifest(source, commit, name), pointer)

    return ask


def manifest(source: Source, commit: str, name: str) -> Manifest:
    files = {entry.path: entry.object_id for entry in source.files(commit, "rules")}
    for path, blob in files.items():
        for _, data in source.blobs([blob]):
            for document in parse_file(data).documents:
                if document.name == name:
                    return Manifest(path, document)
    raise AssertionError(name)


Who = Callable[..., CommitInfo | None]


def found(who: CommitInfo | None) -> tuple[str, str]:
    assert who is not None
    return who.commit, who.author


def test_the_last_who_changed_the_value(repository: Repository, who: Who) -> None:
    repository.write("rules/a.yaml", rule("a", 1))
    repository.commit("one", author=ANN)
    repository.write("rules/a.yaml", rule("a", 2))
    second = repository.commit("two", author=BO)
    repository.write("rules/a.yaml", "# a comment by somebody else\n" + rule("a", 2, order=7))
    third = repository.commit("three", author=CY)
    assert found(who("a")) == (second, BO)
    assert found(who("a", "/spec/order")) == (third, CY)


def test_a_file_that_moved(repository: Repository, who: Who) -> None:
    repository.write("rules/a.yaml", rule("a", 1))
    first = repository.commit("one", author=ANN)
    repository.move("rules/a.yaml", "rules/deep/down/b.yaml")
    repository.commit("move", author=BO)
    assert found(who("a")) == (first, ANN)


def test_a_document_that_moved_into_another_file(repository: Repository, who: Who) -> None:
    """One short line: too little for git itself to recognise."""
    repository.write("rules/a.yaml", rule("a", 1))
    repository.write("rules/b.yaml", rule("b", 2))
    first = repository.commit("one", author=ANN)
    repository.write("rules/b.yaml", rule("b", 2) + "---\n" + rule("a", 1))
    repository.remove("rules/a.yaml")
    repository.commit("join", author=BO)
    assert found(who("a")) == (first, ANN)
    assert found(who("b")) == (first, ANN)


def test_rules_in_another_order_in_their_file(repository: Repository, who: Who) -> None:
    one, two, three = rule("one", 1), rule("two", 2), rule("three", 3)
    repository.write("rules/all.yaml", "---\n".join([one, two, three]))
    first = repository.commit("one", author=ANN)
    repository.write("rules/all.yaml", "---\n".join([three, one, two]))
    repository.commit("reorder", author=BO)
    repository.write("rules/all.yaml", "---\n".join([two, three, rule("one", 9)]))
    third = repository.commit("reorder and edit", author=CY)
    assert found(who("two")) == (first, ANN)
    assert found(who("three")) == (first, ANN)
    assert found(who("one")) == (third, CY)


def test_the_same_value_written_in_another_way(repository: Repository, who: Who) -> None:
    repository.write("rules/a.yaml", rule("a", 1))
    first = repository.commit("one", author=ANN)
    repository.write(
        "rules/a.yaml", rule("a", 1).replace("  set:\n    priority: 1\n", "  set: {priority: 1}\n")
    )
    repository.commit("style", author=BO)
    assert found(who("a")) == (first, ANN)


def test_a_value_of_several_lines(repository: Repository, who: Who) -> None:
    text = rule("a", 1) + "    resources:\n      nodes: 1\n      ntasks: 4\n      time: 1:00:00\n"
    repository.write("rules/a.yaml", text)
    repository.commit("one", author=ANN)
    repository.write("rules/a.yaml", text.replace("ntasks: 4", "ntasks: 8"))
    second = repository.commit("more tasks", author=BO)
    repository.write("rules/a.yaml", text.replace("ntasks: 4", "ntasks: 8").replace("nodes: 1", "nodes:  1"))
    repository.commit("a blank", author=CY)
    assert found(who("a", "/spec/set/resources")) == (second, BO)


def test_set_away_and_back(repository: Repository, who: Who) -> None:
    last = ""
    for author, priority in ((ANN, 1), (BO, 2), (CY, 1)):
        repository.write("rules/a.yaml", rule("a", priority))
        last = repository.commit(str(priority), author=author)
    assert found(who("a")) == (last, CY)


def test_a_merge(repository: Repository, who: Who) -> None:
    """Whoever merged did not write it; what only the merge has, the merger wrote."""
    repository.write("rules/a.yaml", rule("a", 1))
    repository.write("rules/b.yaml", rule("b", 1))
    repository.commit("one", author=ANN)
    repository.run("checkout", "--quiet", "-b", "topic")
    repository.write("rules/a.yaml", rule("a", 2))
    topic = repository.commit("topic", author=BO)
    repository.run("checkout", "--quiet", "main")
    repository.write("rules/c.yaml", rule("c", 1))
    repository.commit("meanwhile", author=ANN)
    repository.run("merge", "--quiet", "--no-commit", "--no-ff", "topic")
    repository.write("rules/b.yaml", rule("b", 5))
    merge = repository.commit("merge", author=CY)
    assert found(who("a")) == (topic, BO)
    assert found(who("b")) == (merge, CY)


def test_a_file_that_the_commit_does_not_have(
    repository: Repository, source: Source, authors: Authors
) -> None:
    repository.write("rules/a.yaml", rule("a", 1))
    commit = repository.commit()
    elsewhere = Manifest("rules/gone.yaml", manifest(source, commit, "a").document)
    assert authors.of(commit, elsewhere, PRIORITY) is None


# causes -----------------------------------------------------------------------------------------------


class Case:
    """What made a value of one rule give way to that of another, between two commits."""

    def __init__(self, repository: Repository, source: Source, authors: Authors) -> None:
        self.repository = repository
        self.source = source
        self.authors = authors

    def cause(self, base: str, old: str, new: str) -> tuple[str, str]:
        head = self.source.revision()
        names = {name for name in (old, new) if self._has(head.commit, name)}
        manifests = {f"OverrideRule/{name}": manifest(self.source, head.commit, name) for name in names}
        desired = DesiredState(
            revision=head, project_name="p", project=None, project_layer={}, workers={}, exec_configs={},  # type: ignore[arg-type]
            rules=[], flows={}, manifests=manifests,
        )  # fmt: skip
        files = {f"OverrideRule/{name}": f"rules/{name}.yaml" for name in (old, new)}
        origins = [Origin(Level.RULE, "OverrideRule", name, PRIORITY) for name in (old, new)]
        return found(Causes(self.authors, desired, base, files).of(*origins))

    def _has(self, commit: str, name: str) -> bool:
        return self.source.entry(commit, f"rules/{name}.yaml") is not None


@pytest.fixture
def case(repository: Repository, source: Source, authors: Authors) -> Case:
    repository.write("rules/weak.yaml", rule("weak", 1))
    repository.write("rules/strong.yaml", rule("strong", 2, order=200))
    repository.commit("both", author=ANN)
    return Case(repository, source, authors)


def test_one_commit_is_its_own_cause(repository: Repository, case: Case) -> None:
    base = repository.head
    repository.write("README", "not even a manifest")
    only = repository.commit("one", author=BO)
    assert case.cause(base, "strong", "weak") == (only, BO)


def test_the_commit_that_wrote_the_value(repository: Repository, case: Case) -> None:
    base = repository.head
    repository.write("rules/strong.yaml", rule("strong", 3, order=200))
    wrote = repository.commit("value", author=BO)
    repository.write("README", "something else")
    repository.commit("readme", author=CY)
    assert case.cause(base, "strong", "strong") == (wrote, BO)


def test_the_commit_that_removed_what_was_stronger(repository: Repository, case: Case) -> None:
    base = repository.head
    repository.remove("rules/strong.yaml")
    removed = repository.commit("remove", author=BO)
    repository.write("README", "something else")
    repository.commit("readme", author=CY)
    assert case.cause(base, "strong", "weak") == (removed, BO)


def test_the_commit_that_changed_the_order(repository: Repository, case: Case) -> None:
    base = repository.head
    repository.write("rules/weak.yaml", rule("weak", 1, order=300))
    reordered = repository.commit("order", author=BO)
    repository.write("README", "something else")
    repository.commit("readme", author=CY)
    assert case.cause(base, "strong", "weak") == (reordered, BO)


def test_the_last_commit_with_some_content(repository: Repository, source: Source, authors: Authors) -> None:
    """The last good version of a document that is broken now, also after other edits."""
    repository.write("rules/a.yaml", rule("a", 1))
    good = repository.commit("good", author=ANN)
    blob = repository.run("rev-parse", "HEAD:rules/a.yaml")
    assert authors.history.last_with(good, "rules/a.yaml", blob) == good
    repository.write("rules/b.yaml", rule("b", 1))
    before = repository.commit("another file", author=BO)
    for text in ("broken: [", "broken: {"):
        repository.write("rules/a.yaml", text)
        repository.commit("break it", author=CY)
    assert authors.history.last_with(repository.head, "rules/a.yaml", blob) == before
    assert authors.history.last_with(repository.head, "rules/b.yaml", blob) is None
