"""Manifests to diagnostics: exact codes, places and hints; directives and references; the two validators."""

from __future__ import annotations

import copy
from textwrap import dedent
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.desired.schemas import compile_check, load_schema
from reconciler.desired.validation import MAX_PROBLEMS, _explainer, _fast_check
from reconciler.desired.values import iter_directives, parse_output_reference
from reconciler.desired.yaml.reader import parse_file
from reconciler.diagnostics import Diagnostic, Severity, render
from reconciler.model.manifests import Kind, ParsedFile


def parsed(text: str) -> ParsedFile:
    return parse_file(dedent(text).encode())


def the_problem(text: str) -> Diagnostic:
    (problem,) = parsed(text).diagnostics
    return problem


def place(problem: Diagnostic) -> tuple[str, int, int]:
    assert problem.location is not None
    return problem.code, problem.location.line, problem.location.column


def manifest(kind: str, spec: str, metadata: str = "{name: x}") -> str:
    """Return a manifest whose spec begins at line 5, indented by two."""
    indented = "".join(f"  {line}\n" for line in dedent(spec).strip("\n").split("\n"))
    return f"apiVersion: reconciler/v1\nkind: {kind}\nmetadata: {metadata}\nspec:\n{indented}"


WORKER = "type: local\nscheduler_type: shell\nwork_dir: /w\n"
JOB = "jobs:\n  - id: a\n    function: m.f\n"

# (kind, spec, code, line, column, part of the message, part of the hint)
BROKEN: dict[str, tuple[str, str, str, int, int, str, str | None]] = {
    "unknown field": (
        "Worker", WORKER + "max_job: 3", "schema/unknown-field", 8, 3,
        "spec does not have a field 'max_job'", "'max_jobs'",
    ),
    "unknown field of a job": (
        "Flow", JOB + "    kwarg: {}", "schema/unknown-field", 8, 7,
        "spec.jobs[0] does not have a field 'kwarg'", "'kwargs'",
    ),
    "misspelt field that is needed": (
        "Flow", "jobs:\n  - id: a\n    functoin: m.f", "schema/unknown-field", 7, 7,
        "'functoin'", "'function'",
    ),
    "misspelt form of a flow": ("Flow", "job:\n  - id: a", "schema/unknown-field", 5, 3, "'job'", "'jobs'"),
    "missing field": (
        "Worker", "type: local\nscheduler_type: shell", "schema/missing-field", 4, 1,
        "needs the field 'work_dir'", "work_dir: ~/campaign/work",
    ),
    "missing field of a job": (
        "Flow", "jobs:\n  - id: a", "schema/one-of", 6, 7,
        "spec.jobs[0] needs exactly one of function and maker", None,
    ),
    "number for a string": (
        "ExecConfig", "export:\n  V: 1.10", "schema/type", 6, 8,
        "spec.export.V: expected a string, got the number 1.10", 'write it in quotes: "1.10"',
    ),
    "octal-looking number for a string": (
        "ExecConfig", "export: {V: 010}", "schema/type", 5, 15, "got the number 010", '"010"'
    ),
    "boolean for a string": (
        "ExecConfig", "export: {V: True}", "schema/type", 5, 15, "got the boolean True", '"True"'
    ),
    "null for a string": ("ExecConfig", "pre_run:", "schema/type", 5, 3, "got nothing", "remove the key"),
    "string for a number": (
        "Flow", JOB + "priority: '3'", "schema/type", 8, 13, "a whole number", "remove the quotes"
    ),
    "float for an integer": ("Flow", JOB + "priority: 1.0", "schema/type", 8, 13, "got the number 1.0", None),
    "boolean for an integer": (
        "Flow", JOB + "priority: true", "schema/type", 8, 13, "got the boolean true", None
    ),
    "yaml 1.1 boolean": (
        "ExecConfig", "expand: on", "schema/type", 5, 11, "got the string 'on'", "write true"
    ),
    "string for a list": ("ExecConfig", "modules: vasp/6.4", "schema/type", 5, 12, "a list", "[vasp/6.4]"),
    "list for a mapping": (
        "Flow", JOB + "resources: [1]", "schema/type", 8, 14, "expected a mapping, got a list", None
    ),
    "number for an exec_config": (
        "Flow", JOB + "exec_config: 6", "schema/type", 8, 16, "a string or a mapping", '"6"'
    ),
    "list as a resource": (
        "Flow", JOB + "resources: {ntasks: [1]}", "schema/type", 8, 23,
        "a string or a number or true or false", None,
    ),
    "not a number as a share": (
        "Project", "max_prune: .nan", "schema/type", 5, 14, "got the number .nan", None
    ),
    "choice": (
        "Worker", "type: local\nscheduler_type: slrum\nwork_dir: /w", "schema/enum", 6, 19,
        "expected one of shell, slurm, pbs, sge; got the string 'slrum'", "'slurm'",
    ),
    "number for a choice": (
        "Project", "prune: 3", "schema/type", 5, 10, "got the number 3", "cancel, orphan, delete"
    ),
    "resolve_references": (
        "Flow", JOB + "    config: {resolve_references: bth}", "schema/enum", 8, 36,
        "true, false, both", "'both'",
    ),
    "max_jobs 0": ("Worker", WORKER + "max_jobs: 0", "schema/minimum", 8, 13, "at least 1", "Omit it"),
    "max_prune": ("Project", "max_prune: 30", "schema/maximum", 5, 14, "at most 1", "share"),
    "build_timeout": ("Project", "build_timeout: 0", "schema/minimum", 5, 18, "above 0", "in seconds"),
    "work_dir": (
        "Worker", "type: local\nscheduler_type: shell\nwork_dir: work", "schema/pattern", 7, 13,
        "absolute path", None,
    ),
    "id with a dot": (
        "Flow", "jobs:\n  - id: a.b\n    function: m.f", "schema/pattern", 6, 11, "no dots", None
    ),
    "function without a module": (
        "Flow", "jobs:\n  - id: a\n    function: f", "schema/pattern", 7, 17, "at least a module", None
    ),
    "path out of the repository": (
        "Flow", "file: a/../../x.json", "schema/pattern", 5, 9, "without a leading '/', '..'", None
    ),
    "absolute path": ("Project", "python_path: [/opt/lib]", "schema/pattern", 5, 17, "relative", None),
    "shell in a module": (
        "ExecConfig", "modules: ['a; rm']", "schema/pattern", 5, 13, "that a shell interprets", None
    ),
    "line break behind a module": (
        "ExecConfig", 'modules: ["a\\n"]', "schema/pattern", 5, 13, "that a shell interprets", None
    ),
    "name of a variable": (
        "ExecConfig", "export: {A-B: x}", "schema/pattern", 5, 12, "only letters, digits and '_'", None
    ),
    "empty name_filter": (
        "OverrideRule", "name_filter: ''\nset: {priority: 1}", "schema/empty", 5, 16,
        "the text is empty", "remove the key",
    ),
    "empty worker": ("Flow", JOB + "worker: ''", "schema/empty", 8, 11, "the text is empty", None),
    "empty set": ("OverrideRule", "set: {}", "schema/empty", 5, 8, "the mapping is empty", None),
    "no jobs": ("Flow", "jobs: []", "schema/empty", 5, 9, "the list is empty", None),
    "no form of a flow": (
        "Flow", "priority: 1", "schema/one-of", 4, 1,
        "spec needs exactly one of jobs, maker, factory and file", None,
    ),
    "two forms of a flow": (
        "Flow", "file: x.json\nmaker: {class: m.M}", "schema/one-of", 6, 3,
        "'file' and 'maker'", "exactly one of jobs,",
    ),
    "resources twice": (
        "Flow", JOB + "qresources: {}\nresources: {}", "schema/both-given", 9, 3,
        "'qresources' and 'resources'", "only one",
    ),
    "resources twice in a rule": (
        "OverrideRule", "set: {resources: {}, qresources: {}}", "schema/both-given", 5, 24,
        "spec.set has", "only one",
    ),
    "unknown directive": (
        "Flow", JOB + "    args: [{$otput: a}]", "value/unknown-directive", 8, 15,
        "'$otput' is not a directive", "'$output'",
    ),
    "directive in the place of a name": (
        "Flow", JOB + "    kwargs: {$path: x}", "value/misplaced-directive", 8, 16,
        "keyword argument", "{name: {$path",
    ),
    "two directives": (
        "Flow", JOB + "    args: [{$path: x, $call: m.f}]", "value/extra-key", 8, 25,
        "beside '$path'", "alone",
    ),
    "key beside a directive": (
        "Flow", JOB + "    args: [[{$path: x, y: 1}]]", "value/extra-key", 8, 26,
        "'y' is not allowed beside '$path'", "alone",
    ),
    "misspelt key beside $call": (
        "Flow", JOB + "    args: [{$call: m.f, arg: []}]", "value/extra-key", 8, 27, "'arg'", "'args'"
    ),
    "args of $call": (
        "Flow", JOB + "    args: [{$call: m.f, args: 1}]", "value/type", 8, 33, "'args' must be a list", None
    ),
    "call of no dotted path": (
        "Flow", JOB + "    args: [{$call: open}]", "value/dotted-path", 8, 22,
        "'open' is not a dotted path", "package.",
    ),
    "nested directive": (
        "Flow", JOB + "    args: [{$call: m.f, args: [{$path: ../x}]}]", "value/path", 8, 42,
        "'../x'", "relative",
    ),
    "path that is no text": (
        "Flow", JOB + "    args: [{$path: 1}]", "value/type", 8, 22, "'$path' must be", None
    ),
    "maker without class": (
        "Flow", "maker: {class: m.M, kwargs: {x: {$maker: {kwargs: {}}}}}", "value/missing-key", 5, 36,
        "needs a 'class'", None,
    ),
    "unknown key of a maker": (
        "Flow", "maker: {class: m.M, kwargs: {x: {$maker: {class: m.M, kwrgs: {}}}}}",
        "value/extra-key", 5, 57,
        "'kwrgs'", "'kwargs'",
    ),
    "argument of make()": (
        "Flow", "maker: {class: m.M, make: {args: [{$call: 1}]}}", "value/type", 5, 45,
        "'$call' must be", None,
    ),
    "reference that is no text": (
        "Flow", JOB + "    args: [{$output: 1}]", "value/type", 8, 24, "'$output'", None
    ),
    "bad reference": (
        "Flow", JOB + "    args: [{$output: b..c}]", "value/output-reference", 8, 24, "'..c'", None
    ),

    "mapping for a tuple": (
        "Flow", JOB + "    args: [{$tuple: {a: 1}}]", "value/type", 8, 23, "'$tuple' must be a list", None,
    ),
    "broken value in a set": (
        "Flow", JOB + "    args: [{$set: [{$path: /etc/passwd}]}]", "value/path", 8, 30, "inside", None,
    ),
    "mapping for a map": (
        "Flow", JOB + "    args: [{$map: {b: a}}]", "value/type", 8, 21, "a list of pairs [key, value]", None,
    ),
    "entry of a map": (
        "Flow", JOB + "    args: [{$map: [[1, 2], [3]]}]", "value/map", 8, 30, "a pair [key, value]", None,
    ),
    "list as a key": (
        "Flow", JOB + "    args: [{$map: [[[1], 2]]}]", "value/map", 8, 23, "cannot be a key", "$tuple",
    ),
    "text for bytes": (
        "Flow", JOB + "    args: [{$bytes: 'abc!'}]", "value/bytes", 8, 23, "bytes as base64", "base64",
    ),
    "number for bytes": (
        "Flow", JOB + "    args: [{$bytes: 12}]", "value/bytes", 8, 23, "bytes as base64", "quote",
    ),
    "file outside to load": (
        "Flow", JOB + "    args: [{$load: ../a.json}]", "value/path", 8, 22, "not a path inside", None,
    ),
    "key beside a tuple": (
        "Flow", JOB + "    args: [{$tuple: [1], a: 1}]", "value/extra-key", 8, 28, "beside '$tuple'", "alone",
    ),
    "suffix on two lines": (
        "Flow", JOB + 'name_suffix: "a\\nb"', "schema/pattern", 8, 16, "text on one line", None,
    ),
    "unknown key of a reference": (
        "Flow", JOB + "    args: [{$output: {jb: b}}]", "value/output-reference", 8, 24,
        "'$output' does not have a key 'jb': did you mean 'job'", None,
    ),
    "reference to nothing": (
        "Flow", JOB + "    args: [{$output: {path: b}}]", "value/output-reference", 8, 24,
        "'$output' needs 'job', 'flow' or both", None,
    ),
    "number as a job": (
        "Flow", JOB + "    args: [{$output: {job: 1}}]", "value/output-reference", 8, 24,
        "'job' of '$output' must be text", None,
    ),
    "bad path of a reference": (
        "Flow", JOB + "    args: [{$output: {flow: y, path: 'a..b'}}]", "value/output-reference", 8, 24,
        "'..b' in 'a..b' is not an attribute", None,
    ),
    "flow with a bad name": (
        "Flow", JOB + "    args: [{$output: {flow: y/z}}]", "value/output-reference", 8, 24,
        "'y/z' is not the name of a flow", None,
    ),
    "its own output": (
        "Flow", JOB + "    args: [{$output: {flow: x}}]", "flow/unknown-job", 8, 24,
        "a flow cannot use its own output", "name a job",
    ),
    "part of one job": (
        "Flow", JOB + "  - {id: c, function: m.g, args: [{$output: {job: a/b}}]}", "flow/unknown-job", 8, 47,
        "'a' is one job, so 'a/b' does not exist", None,
    ),
    "function and maker": (
        "Flow", JOB + "    maker: {class: m.M}", "schema/one-of", 8, 7, "exclude each other", None,
    ),
    "arguments beside a maker": (
        "Flow", "jobs:\n  - id: a\n    maker: {class: m.M}\n    args: [1]", "flow/arguments-of-maker", 8, 7,
        "'args' beside 'maker' has no effect", "maker.make.args",
    ),
    "wrong reference in a maker": (
        "Flow", "jobs:\n  - id: a\n    maker: {class: m.M, make: {args: [{$output: b}]}}",
        "flow/unknown-job", 7, 51,
        "this flow does not have a job with the id 'b'", None,
    ),
    "unknown key of the maker of an entry": (
        "Flow", "jobs:\n  - id: a\n    maker: {clas: m.M}", "schema/unknown-field", 7, 15,
        "spec.jobs[0].maker does not have a field 'clas'", "'class'",
    ),    "unknown job": (
        "Flow",
        JOB + "  - {id: relax, function: m.f}\n  - {id: b, function: m.f, args: [{$output: relx.energy}]}",
        "flow/unknown-job", 9, 47,
        "does not have a job with the id 'relx'", "'relax'",
    ),
    "own job of a factory": (
        "Flow", "factory: {function: m.f, args: [{$output: a}]}", "flow/unknown-job", 5, 45,
        "does not list", "flow/job",
    ),
    "outputs in memory": (
        "Project", "jobstore:\n  docs_store: {type: MemoryStore}", "project/forgetful-jobstore", 6, 17,
        "keeps nothing", "MongoStore",
    ),
    "large outputs in memory": (
        "Project", "jobstore:\n  docs_store: {type: MongoURIStore}\n  additional_stores:\n    data:\n"
        "      type: S3Store\n      index: {type: MemoryStore}", "project/forgetful-jobstore", 10, 16,
        "keeps nothing", None,
    ),
    "outputs in a file that is only read": (
        "Project", "jobstore:\n  docs_store: {type: JSONStore, paths: a.json}", "project/forgetful-jobstore",
        6, 17, "unless it can be written", "read_only: false",
    ),
    "outputs among files": (
        "Project", "jobstore:\n  docs_store: {type: MongoURIStore}\n  additional_stores:\n"
        "    data: {type: FileStore, path: x, read_only: true}", "project/forgetful-jobstore",
        8, 13, "cannot keep outputs", "S3Store",
    ),
    "serialised store in memory": (
        "Project", 'jobstore:\n  "@module": maggma.stores.mongolike\n  "@class": MemoryStore',
        "project/forgetful-jobstore", 6, 5, "keeps nothing", "MongoStore",
    ),
    "serialised object that is not a store": (
        "Project", 'jobstore:\n  "@module": jobflow.core.store\n  "@class": JobStore\n'
        '  docs_store: {"@module": os, "@class": system}', "project/jobstore-class", 8, 17,
        "stores of maggma and jobflow only", "docs_store",
    ),
    "function in place of a store": (
        "Project", 'jobstore:\n  docs_store: {"@module": maggma.stores, "@callable": Store.connect}',
        "project/jobstore-class", 6, 17, "stores of maggma and jobflow only", None,
    ),
    "serialised object among the secrets of a store": (
        "Project",
        'jobstore:\n  docs_store: {type: MongoStore, x: [{"@module": maggma.stores_x, "@class": C}]}',
        "project/jobstore-class", 6, 40, "stores of maggma and jobflow only", None,
    ),
    "job that needs itself": (
        "Flow", JOB + "    args: [{$output: a}]", "flow/cycle", 8, 24, "'a' needs its own output", None
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "spec", "code", "line", "column", "message", "hint"), BROKEN.values(), ids=BROKEN
)
def test_a_broken_spec_gives_one_problem_at_its_place(
    kind: str, spec: str, code: str, line: int, column: int, message: str, hint: str | None
) -> None:
    problem = the_problem(manifest(kind, spec))
    assert place(problem) == (code, line, column)
    assert message in problem.message
    assert hint is None or hint in (problem.hint or "")
    assert "is not of type" not in problem.message, "the raw text of jsonschema"


HEADS: dict[str, tuple[str, str, int, int, str | None]] = {
    "unknown kind": ("apiVersion: reconciler/v1\nkind: Flwo\n", "manifest/kind", 2, 7, "'Flow'"),
    "kind in lower case": ("apiVersion: reconciler/v1\nkind: worker\n", "manifest/kind", 2, 7, "'Worker'"),
    "kind that is no text": ("apiVersion: reconciler/v1\nkind: [Flow]\n", "manifest/kind", 2, 7, None),
    "no kind": ("apiVersion: reconciler/v1\nknd: Flow\n", "manifest/kind", 1, 1, "'knd'"),
    "no manifest": ("---\nelements: [Cu]\n", "manifest/kind", 2, 1, "keep data elsewhere"),
    "other version": ("apiVersion: v2\nkind: Flow\n", "manifest/api-version", 1, 13, "reconciler/v1"),
    "no version": (
        "kind: ExecConfig\nmetadata: {name: a}\nspec: {}\n", "manifest/api-version",
        1, 1, "apiVersion: reconciler/v1",
    ),
    "list": ("- a\n- b\n", "manifest/not-a-mapping", 1, 1, "keep data elsewhere"),
    "text": ("\nhello\n", "manifest/not-a-mapping", 2, 1, None),
}  # fmt: skip


@pytest.mark.parametrize(("text", "code", "line", "column", "hint"), HEADS.values(), ids=HEADS)
def test_a_document_that_is_no_manifest(
    text: str, code: str, line: int, column: int, hint: str | None
) -> None:
    problem = the_problem(text)
    assert place(problem) == (code, line, column)
    assert hint is None or hint in (problem.hint or "")


METADATA: dict[str, tuple[str, str, int, int]] = {
    "version as a name": ("{name: 1.10}", "schema/type", 3, 18),
    "blank in a name": ("{name: a b}", "schema/pattern", 3, 18),
    "slash in a name": ("{name: a/b}", "schema/pattern", 3, 18),
    "line break behind a name": ('{name: "a\\n"}', "schema/pattern", 3, 18),
    "long name": (f"{{name: {'a' * 101}}}", "schema/too-long", 3, 18),
    "no name": ("{}", "schema/missing-field", 3, 1),
    "number as a label": ("{name: a, labels: {v: 010}}", "schema/type", 3, 33),
    "previous names": ("{name: a, previous_names: [b]}", "schema/unknown-field", 3, 21),
}


@pytest.mark.parametrize(("metadata", "code", "line", "column"), METADATA.values(), ids=METADATA)
def test_metadata(metadata: str, code: str, line: int, column: int) -> None:
    text = f"apiVersion: reconciler/v1\nkind: ExecConfig\nmetadata: {metadata}\nspec: {{}}\n"
    assert place(the_problem(text)) == (code, line, column)


VALID = {
    "Project": "max_prune: 0.5\nprune: orphan\npython_path: [lib, .]\ndefaults: {priority: 0}\n"
    "jobstore: {docs_store: {type: JSONStore, paths: a.json, read_only: false}}",
    "Worker": WORKER + "max_jobs: 1",
    "ExecConfig": "modules: [vasp/6.4]\nexport: {OMP_NUM_THREADS: '1', V: on}\nexpand: true",
    "Maker": "class: m.M\nkwargs: {a: {$maker: {ref: other, kwargs: {x: 1}}}, b: {$path: a/b.cif}}",
    "Policy": "sources:\n- {source: 'https://x/*', secrets: {h: [agent]}, limits: {hours: 0.5}}",
    "OverrideRule": "flows: ['arith*']\nset: {resources: {}, exec_config: {}, priority: 0}",
    "Flow": """
        resources: {time: 8:00:00, nodes: 1, exclusive: true}
        exec_config: {modules: [a]}
        jobs:
          - id: a
            function: m.f
            args: [{$call: m.g, args: [{$path: a/b.cif}], kwargs: {m: {$maker: {class: m.M}}}}, {x: 010}]
            config: {resolve_references: both, response_manager_config: {worker: w}}
          - id: b
            function: m.f
            kwargs: {x: [{$output: "a.structure[0].lattice"}], y: {$output: "other-flow.1/LJ relax.energy"}}
          - {id: c, maker: {class: m.M, make: {args: [{$output: {job: a, path: "x[0]"}}]}}, priority: 3}
          - {id: d, function: m.f, args: [{$output: {job: "c/relax 1/6"}}, {$output: {flow: other}}]}
          - {id: e, function: m.f, args: [{$output: {flow: o, job: "relax 1/6", path: '["a.b"].c'}}]}
    """,
    "FlowSet": """
        items:
          from: [{csv: a.csv, delimiter: ";"}, {list: [{a: 1}], key: a}]
          join: {on: [a, b], how: inner}
          matrix: {x: [1, 2]}
          exclude: [{a: 1, x: ">1"}]
          schema: {properties: {a: {type: integer}}}
        key: "{a}-{x}"
        template: {jobs: [{id: a, function: m.f, args: [{$item: a}]}], labels: {x: "{x}"}}
        overrides: [{match: {a: ">60"}, keys: ["1-*"], set: {resources: {nodes: 2}}, suspend: true}]
        limits: {max_items: 5, max_removed: 5%}
        on_removed: keep
        suspend: true
    """,
}


@pytest.mark.parametrize(("kind", "spec"), VALID.items())
def test_a_valid_manifest_has_no_problem(kind: str, spec: str) -> None:
    result = parsed(manifest(kind, spec))
    assert result.diagnostics == []
    (document,) = result.documents
    assert (document.kind, document.name, document.valid) == (kind, "x", True)


def test_eight_oclock_stays_a_text() -> None:
    (document,) = parsed(manifest("Flow", VALID["Flow"])).documents
    assert document.content["spec"]["resources"]["time"] == "8:00:00"


def test_an_invalid_document_keeps_kind_and_name() -> None:
    (document,) = parsed(manifest("Worker", "type: moon")).documents
    assert (document.kind, document.name, document.valid) == ("Worker", "x", False)


def test_all_problems_of_a_file_are_told_in_the_order_of_their_places() -> None:
    text = manifest("Worker", "type: locl\nmax_jobs: 0", "{nam: x}") + "---\n" + manifest("Flow", "{}")
    assert [place(problem) for problem in parsed(text).diagnostics] == [
        ("schema/unknown-field", 3, 12),
        ("schema/missing-field", 4, 1),
        ("schema/missing-field", 4, 1),
        ("schema/enum", 5, 9),
        ("schema/minimum", 6, 13),
        ("schema/one-of", 11, 1),
    ]


def test_a_missing_version_hides_no_other_problem() -> None:
    text = "kind: ExecConfig\nmetadata: {name: a}\nspec: {mdules: []}\n"
    assert [problem.code for problem in parsed(text).diagnostics] == [
        "manifest/api-version",
        "schema/unknown-field",
    ]


def test_a_reader_problem_is_not_told_again_by_the_schema() -> None:
    problem = the_problem(manifest("Flow", JOB + "priority: 99999999999999999999"))
    assert problem.code == "yaml/number-range"


def test_both_places_of_keys_that_exclude_each_other_are_named() -> None:
    problem = the_problem(manifest("Flow", "file: x.json\nmaker: {class: m.M}"))
    assert [(note.location.line, note.location.column) for note in problem.related] == [(5, 3)]


def test_a_job_id_given_twice_names_both_places() -> None:
    problem = the_problem(manifest("Flow", JOB + "  - function: m.g\n    id: a"))
    assert place(problem) == ("flow/duplicate-job-id", 9, 11)
    assert [(note.location.line, note.location.column) for note in problem.related] == [(6, 11)]


def test_a_cycle_names_its_chain_and_every_reference() -> None:
    spec = """
        jobs:
          - {id: c, function: m.f, args: [{$output: a.x}]}
          - {id: a, function: m.f, kwargs: {v: [{$output: b}]}}
          - {id: b, function: m.f, args: [{$call: m.g, args: [{$output: c}]}]}
          - {id: d, function: m.f, args: [{$output: a}]}
    """
    problem = the_problem(manifest("Flow", spec))
    assert place(problem) == ("flow/cycle", 7, 53)
    assert "a -> b -> c -> a" in problem.message
    assert [(note.location.line, note.label) for note in problem.related] == [
        (8, "'b' needs 'c' here"),
        (6, "'c' needs 'a' here"),
    ]


def test_two_cycles_are_both_told() -> None:
    jobs = "".join(
        f"  - {{id: {a}, function: m.f, args: [{{$output: {b}}}]}}\n" for a, b in ("ab", "ba", "cd", "dc")
    )
    problems = parsed(manifest("Flow", "jobs:\n" + jobs)).diagnostics
    assert [problem.code for problem in problems] == ["flow/cycle", "flow/cycle"]


def test_makers_take_part_in_cycles() -> None:
    spec = """
        jobs:
          - {id: a, maker: {class: m.M, make: {args: [{$output: {job: b/x}}]}}}
          - {id: b, maker: {class: m.M, kwargs: {k: {$maker: {class: m.N, kwargs: {v: {$output: a}}}}}}}
    """
    problem = the_problem(manifest("Flow", spec))
    assert place(problem) == ("flow/cycle", 6, 59)
    assert "a -> b -> a" in problem.message


def test_the_flows_own_name_refers_to_its_own_jobs() -> None:
    assert the_problem(manifest("Flow", JOB + "    args: [{$output: x/nope}]")).code == "flow/unknown-job"
    assert parsed(manifest("Flow", JOB + "    args: [{$output: y/nope}]")).diagnostics == []


def test_many_problems_are_cut() -> None:
    spec = "".join(f"k{number}: 1\n" for number in range(500))
    problems = parsed(manifest("ExecConfig", spec)).diagnostics
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1].code == "manifest/more-problems"


def test_long_texts_are_cut() -> None:
    (problem,) = parsed(manifest("Flow", f"file: /{'a' * 100_000}")).diagnostics
    assert len(problem.message) < 500
    assert problem.excerpt is None


def test_the_report_of_a_problem_reads_well() -> None:
    problem = the_problem(manifest("ExecConfig", "export:\n  VERSION: 1.10"))
    assert render(problem) == dedent("""\
        error[schema/type]: spec.export.VERSION: expected a string, got the number 1.10
          --> :6:14
          |
        6 |     VERSION: 1.10
          |              ^^^^
          help: write it in quotes: "1.10\"""")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("a", (None, "a", ())),
        ("0", (None, "0", ())),
        ("relax-1.structure.lattice", (None, "relax-1", (("a", "structure"), ("a", "lattice")))),
        ("a[0]", (None, "a", (("i", 0),))),
        ("a.b[-1].c", (None, "a", (("a", "b"), ("i", -1), ("a", "c")))),
        ("""a["x.y/z"]['q']""", (None, "a", (("i", "x.y/z"), ("i", "q")))),
        ("flow/a.b", ("flow", "a", (("a", "b"),))),
        ("eos-1.5/a", ("eos-1.5", "a", ())),
        ("eos/LJ relax#2.energy", ("eos", "LJ relax#2", (("a", "energy"),))),
    ],
)
def test_references(text: str, reference: Any) -> None:
    assert parse_output_reference(text) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a.",
        "a..b",
        ".a",
        "a b",
        "a[",
        "a[x]",
        "a[]",
        "a.b c",
        "f/",
        "/a",
        "f/ a",
        "a/b/c",
        "a[1]b",
        "ä",
    ],
)
def test_texts_that_are_no_reference(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_output_reference(text)


@given(st.text(st.sampled_from("ab0_-./[]\"' #")))
def test_a_reference_is_read_or_refused_with_a_sentence(text: str) -> None:
    try:
        _, job, _ = parse_output_reference(text)
    except ValueError as error:
        assert len(str(error)) > 10
    else:
        assert job in text


def test_directives_are_found_at_any_depth_outer_first() -> None:
    content = {
        "args": [{"$call": "m.f", "args": [{"$path": "x"}]}],
        "kwargs": {"a/b": {"$output": "j"}, "c": 1},
    }
    assert list(iter_directives(content, "/spec/jobs/0")) == [
        ("/spec/jobs/0/args/0", "$call", "m.f"),
        ("/spec/jobs/0/args/0/args/0", "$path", "x"),
        ("/spec/jobs/0/kwargs/a~1b", "$output", "j"),
    ]


_PIECES = [
    None,
    True,
    0,
    1,
    -1,
    1.0,
    0.5,
    float("nan"),
    "",
    "a",
    "a\n",
    "a.b",
    "a b",
    "both",
    "hold",
    "/w",
    [],
    {},
]
_PIECES += [["a"], [1], {"name": "a"}, {"a": "b"}, {"resources": {}, "qresources": {}}, {"jobs": []}]


def _positions(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict | list):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            found += _positions(entry, (*path, key))
    return found


def _mutated(document: Any, path: tuple[Any, ...], change: str, piece: Any) -> Any:
    """Return a copy in which one value is replaced, removed, or has a key more."""
    if not path:
        return piece
    document = copy.deepcopy(document)
    *parents, last = path
    holder = document
    for step in parents:
        holder = holder[step]
    if change == "remove":
        del holder[last]
    elif change == "add" and isinstance(holder, dict):
        holder[f"{last}x"] = piece
    else:
        holder[last] = piece
    return document


@given(st.data())
@settings(deadline=None, max_examples=400)
def test_the_fast_check_and_jsonschema_agree(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(list(Kind)))
    examples = [*load_schema(kind)["examples"], parsed(manifest(kind, VALID[kind])).documents[0].content]
    document = data.draw(st.sampled_from(examples))
    for _ in range(data.draw(st.integers(0, 3))):
        path = data.draw(st.sampled_from(_positions(document)))
        change = data.draw(st.sampled_from(["replace", "remove", "add"]))
        document = _mutated(document, path, change, data.draw(st.sampled_from(_PIECES)))
    assert _fast_check(kind)(document) == (next(iter(_explainer(kind)(document)), None) is None)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_every_document_that_breaks_its_schema_is_told(data: st.DataObject) -> None:
    """No error of jsonschema is lost on its way to the user, and none makes the telling fail."""
    kind = data.draw(st.sampled_from(list(Kind)))
    document = parsed(manifest(kind, VALID[kind])).documents[0].content
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_positions(document["spec"])))
        change = data.draw(st.sampled_from(["replace", "remove", "add"]))
        piece = data.draw(st.sampled_from([piece for piece in _PIECES if piece == piece]))  # JSON has no NaN
        document["spec"] = _mutated(document["spec"], path, change, piece)
    result = parse_file(msgspec.json.encode(document))
    assert result.readable
    broken = not _fast_check(kind)(document)
    schema_codes = [problem for problem in result.diagnostics if problem.code.startswith("schema/")]
    assert bool(schema_codes) == broken


def test_a_keyword_without_a_check_is_refused() -> None:
    with pytest.raises(ValueError, match="multipleOf"):
        compile_check({"type": "object", "properties": {"a": {"multipleOf": 2}}})


@pytest.mark.parametrize(
    ("kind", "spec", "line", "variable"),
    [
        ("ExecConfig", "export: {PATH: '/opt/vasp/bin:$PATH'}", 5, "$PATH"),
        ("ExecConfig", "export:\n  A: plain\n  SCRATCH: ${HOME}/x", 7, "$HOME"),
        ("ExecConfig", "export: {LIB: 'a:${LD_LIBRARY_PATH:-}'}", 5, "$LD_LIBRARY_PATH"),
        ("Flow", JOB + "    exec_config: {export: {A: $HOME}}", 8, "$HOME"),
        ("Flow", JOB + "exec_config: {export: {A: $HOME}}", 8, "$HOME"),
        ("OverrideRule", "set: {exec_config: {export: {A: '$A:b'}}}", 5, "$A"),
        ("Project", "defaults: {exec_config: {export: {A: '$A:b'}}}", 5, "$A"),
    ],
)
def test_a_variable_that_is_not_expanded(kind: str, spec: str, line: int, variable: str) -> None:
    problem = the_problem(manifest(kind, spec))
    assert (problem.code, problem.severity) == ("exec-config/not-expanded", Severity.WARNING)
    assert problem.location is not None and problem.location.line == line
    assert f"'{variable}'" in problem.message
    assert "expand: true" in (problem.hint or "")


@pytest.mark.parametrize(
    "spec",
    [
        "export: {A: '/opt:$PATH'}\nexpand: true",
        "export: {A: 'literally $PATH'}\nexpand: false",
        "export: {A: 'costs 5$', B: '$5', C: '$', D: '100 $ each', E: '$(date)'}",
        "pre_run: export PATH=/opt:$PATH",
    ],
)
def test_variables_that_are_meant_as_they_are(spec: str) -> None:
    assert parsed(manifest("ExecConfig", spec)).diagnostics == []


def test_arguments_of_jobs_are_data() -> None:
    args = "    kwargs: {exec_config: {export: {A: $HOME}}}"
    assert parsed(manifest("Flow", JOB + args)).diagnostics == []
