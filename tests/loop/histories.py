"""Random histories of a repository and its jobs, to compare plans that read little with those that read all.

Beside the edits of :mod:`tests.loop.random_repositories` there are those that break documents, rename flows,
change code, files, workers and the Project, and commits that touch nothing of the campaign. Flows are not
built by jobflow but by :class:`QuickBuilder`, which makes the jobs that a manifest lists in no time.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.build.builder import BuildFailedError
from reconciler.desired.source.git import Source
from reconciler.errors import InputError, RefusedError
from reconciler.jobs.operations import OperationRunner
from reconciler.jobs.transitions import move
from reconciler.loop import Session
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.flows import BuiltFlow, BuiltJob, build_key, digest, job_uuid
from reconciler.model.operations import JobOperation
from reconciler.model.records import NOT_CANCELLED, GeneratedBy, JobRecord
from reconciler.model.states import ACTIVE, JobState
from reconciler.plan.operations import OperationPlanner
from tests.loop.random_repositories import EDITS, RepositoryModel, random_model, write
from tests.loop.worlds import Silent
from tests.support import Repository


class QuickBuilder:
    """Builds the flows that list their jobs; a flow with the label ``broken`` cannot be built."""

    def __init__(self, source: Source, desired: DesiredState, state_dir: Path, spare: object = None) -> None:
        self.desired = desired
        self.unfinished = 0
        self.is_full = False

    def start(self, flow: DesiredFlow, externals: dict[str, tuple[str, str]]) -> None:
        self.started = flow, self.build(flow, externals)
        self.is_full, self.unfinished = True, 1

    def next(self) -> tuple[DesiredFlow, BuiltFlow]:
        self.is_full, self.unfinished = False, 0
        return self.started

    def build(self, flow: DesiredFlow, externals: dict[str, tuple[str, str]]) -> BuiltFlow:
        if flow.labels.get("broken") == "yes":
            text = f"flow '{flow.name}' cannot be built: it is broken"
            raise BuildFailedError(flow.manifest.diagnostic("build/failed", text, "/spec/jobs"))
        contents: dict[str, str] = {}
        jobs: dict[str, BuiltJob] = {}
        previews = {f"{flow.name}/{job.key}": job for job in flow.preview}

        def content(path: str) -> str:
            if path not in previews:
                return externals[path][1]
            if path not in contents:
                job = previews[path]
                contents[path] = digest([job.digest, [content(need) for need in job.needs]])
            return contents[path]

        seen: dict[str, int] = {}
        for path, job in previews.items():
            number = seen[content(path)] = seen.get(content(path), -1) + 1
            jobs[path] = BuiltJob(
                key=job.key, uuid=job_uuid(flow.identity, content(path), number), index=1, name=job.name,
                function=job.function, content=content(path), parents=[], on_missing="error", own={},
                files=[], hosts=[], payload=b"{}",
            )  # fmt: skip
        for path, job in previews.items():
            parents = [jobs[need].uuid if need in jobs else externals[need][0] for need in job.needs]
            jobs[path] = msgspec.structs.replace(jobs[path], parents=parents)
        return BuiltFlow(
            build_key=build_key(flow.inputs, externals), jobs=list(jobs.values()), jobflow_version="0",
            code=flow.code, preview={job.key: job.digest for job in flow.preview}, form=flow.content,
            files=flow.files, externals=dict(externals),
        )  # fmt: skip

    def close(self) -> None: ...

    def kill(self) -> None: ...


class History:
    """A repository, its store, and what happens to both. ``odd`` are files beside those of the model."""

    def __init__(self, root: Path, source: random.Random) -> None:
        self.random = source
        self.root = root
        self.repository = Repository(root / "repository")
        self.source = Source(self.repository.path / ".git", self.repository.path, None, "")
        self.store = Store(root / "state")
        self.clock = 1000.0
        self.model: RepositoryModel = random_model(source)
        self.odd: dict[str, str] = {
            "data/a.txt": "1",
            "lib/code.py": "x = 1\n",
            "README": "read",
            "more/keep.txt": "",
        }
        self.project: dict[str, Any] = {
            "manifests": ["flows", "rules", "more"],
            "defaults": {"worker": "w1"},
            "python_path": ["lib"],
            "max_prune": 0.9,
        }
        self.workers: dict[str, dict[str, Any]] = {name: self._worker(name) for name in ("w1", "w2")}
        self.extra: dict[str, dict[str, Any]] = {}
        self.names = 0
        self._written: dict[str, str] = {}
        self.commit()

    def _worker(self, name: str) -> dict[str, Any]:
        return {"type": "local", "scheduler_type": "shell", "work_dir": f"/nowhere/{name}", "max_jobs": 2}

    # commits ------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Commit the present content."""
        documents = [_manifest("Project", "minimal", self.project)]
        documents += [_manifest("Worker", name, spec) for name, spec in self.workers.items()]
        self.repository.write("reconciler.yaml", "\n---\n".join(map(json.dumps, documents)))
        files = self.odd | {f"more/{name}.yaml": json.dumps(one) for name, one in self.extra.items()}
        for path in self._written.keys() - files.keys():
            self.repository.remove(path)
        for path, text in files.items():
            if self._written.get(path) != text:
                self.repository.write(path, text)
        self._written = files
        write(self.model, self.repository)

    def edit(self) -> str:
        """Make one random edit, and return its name."""
        edit = self.random.choice([*EDITS, *EDITS, *ODD_EDITS])
        if isinstance(edit, str):
            getattr(self, edit)()
            return edit
        edit(self.model, self.random)
        return edit.__name__

    def step(self) -> list[str]:
        """Commit some edits, and mostly undo those that break something; return their names."""
        before = copy.deepcopy((self.model, self.odd, self.project, self.workers, self.extra))
        edits = [self.edit() for _ in range(self.random.choice([1, 1, 1, 2, 3]))]
        self.commit()
        if self.random.random() < 0.8:
            session = self.session()
            plan = session.plan(session.load(), allow_prune=True)
            if plan.diagnostics:
                self.model, self.odd, self.project, self.workers, self.extra = before
                edits = [f"not {edit}" for edit in edits]
                self.commit()
        return edits

    def note_beside(self) -> None:
        self.odd["README"] = str(self.random.random())

    def change_code(self) -> None:
        self.odd["lib/code.py"] = f"x = {self.random.random()}\n"

    def change_file(self) -> None:
        self.odd[self.random.choice(["data/a.txt", "data/b.txt"])] = str(self.random.randint(0, 3))

    def remove_file(self) -> None:
        self.odd.pop(self.random.choice(["data/a.txt", "data/b.txt"]), None)

    def break_document(self) -> None:
        what = self.random.choice(BROKEN)
        self.odd[what] = self.random.choice(["{", "a: 1", json.dumps(_manifest("Flow", "z", {"jobs": 3}))])

    def mend_documents(self) -> None:
        self.odd = {path: text for path, text in self.odd.items() if path not in BROKEN}
        self.extra = {name: one for name, one in self.extra.items() if not name.startswith("wrong")}

    def add_special_flow(self) -> None:
        """Add a flow with a feature that the model does not have, or change one."""
        self.names += 1
        name = self.random.choice([*self.extra, f"special{self.names}"])
        file = self.random.choice(["data/a.txt", "data/b.txt"])
        argument: Any = self.random.choice(
            [1, {"$path": file}, {"path": file}, [{"$path": "data/a.txt"}], self._reference()]
        )
        function = self.random.choice(["reconciler.examples.value", "code.function", "other.function"])
        jobs = [{"id": "j", "function": function, "args": [argument]}]
        if self.random.random() < 0.3:
            jobs.append({"id": "k", "function": function, "args": [{"$output": "j"}], "priority": 3})
        spec: dict[str, Any] = {"jobs": jobs}
        for key, values in {
            "on_change": ["hold", "recompute"],
            "on_code_change": ["keep", "recompute", "retry_failed"],
            "prune": ["cancel", "orphan", "delete"],
            "rerun": ["a", "b"],
            "suspend": [True, False],
            "worker": ["w1", "w2", "w9"],
        }.items():
            if self.random.random() < 0.2:
                spec[key] = self.random.choice(values)
        document = _manifest("Flow", name, spec)
        if self.random.random() < 0.3:
            document["metadata"]["labels"] = {"group": self.random.choice(["a", "b"])}
        if self.random.random() < 0.2:
            document["metadata"]["annotations"] = {"reconciler/prune": "disabled"}
        self.extra[name] = document

    def _reference(self) -> Any:
        flows = [(flow.name, job.key) for flow in self.model.flows for job in flow.jobs]
        flow, job = self.random.choice(flows)
        return {"$output": f"{flow}/{job}"}

    def rename_special_flow(self) -> None:
        if self.extra:
            old = self.random.choice(list(self.extra))
            self.names += 1
            document = self.extra.pop(old)
            metadata = document["metadata"]
            if self.random.random() < 0.7:
                metadata["previous_names"] = [*metadata.get("previous_names", []), metadata["name"]]
            metadata["name"] = f"special{self.names}"
            self.extra[metadata["name"]] = document

    def claim_name(self) -> None:
        """Let a flow claim the name of another one as its previous name."""
        if self.extra:
            document = self.extra[self.random.choice(list(self.extra))]
            document["metadata"]["previous_names"] = [self.random.choice(self.model.flows).name]

    def remove_special_flow(self) -> None:
        if self.extra:
            name = self.random.choice(list(self.extra))
            del self.extra[name]

    def duplicate_flow(self) -> None:
        """Give a flow of the model a second document."""
        name = self.random.choice(self.model.flows).name
        job = {"id": "j", "function": "reconciler.examples.value", "args": [7]}
        self.extra[f"wrong-{name}"] = _manifest("Flow", name, {"jobs": [job]})

    def label_rule(self) -> None:
        self.names += 1
        spec: dict[str, Any] = {"set": {"priority": self.random.randint(0, 5)}}
        spec |= self.random.choice(
            [
                {"labels": {"group": "a"}}, {"flows": ["special*"]}, {"name_filter": "nothing"},
                {"flows": ["flow*"], "name_glob": "j"}, {"function_filter": "code.function"},
            ]
        )  # fmt: skip
        self.model.rules[f"rule{self.names}"] = spec

    def change_worker(self) -> None:
        worker = self.workers[self.random.choice(list(self.workers))]
        worker["max_jobs"] = self.random.randint(1, 5)

    def change_project(self) -> None:
        self.project |= self.random.choice(
            [
                {"prune": "orphan"}, {"prune": "cancel"}, {"defaults": {"worker": "w2"}}, {"python_path": []},
                {"python_path": ["lib"]}, {"on_change": "hold"}, {"on_change": "recompute"},
                {"defaults": {"worker": "w1", "priority": 2}}, {"on_code_change": "retry_failed"},
            ]
        )  # fmt: skip

    # FlowSets -----------------------------------------------------------------------------------------

    def add_flowset(self) -> None:
        """Add a set of one of some kinds, with its table."""
        self.names += 1
        name = self.random.choice(["a", "a-b", f"set{self.names}"])
        sources: list[dict[str, Any]] = [{"csv": "data/t.csv"}]
        if self.random.random() < 0.3:
            sources = [{"list": [{"name": n, "x": self.random.randint(0, 2)} for n in ("b-c", "d")]}]
        if self.random.random() < 0.2:
            sources = [{"files": "data/*.txt", "as": "x", "key": "stem"}]
        column = "key" if "files" in sources[0] else "name"
        job = {"id": "j", "function": "reconciler.examples.value", "args": [{"$item": "x"}]}
        items: dict[str, Any] = {"from": sources}
        spec = {"items": items, "key": f"{{{column}}}", "template": {"jobs": [job]}}
        self.extra[f"set-{name}"] = _manifest("FlowSet", name, spec)
        self.change_table()

    def change_table(self) -> None:
        """Add, remove, change and shuffle rows; sometimes the table is cut off or has a key twice."""
        text = self.odd.get("data/t.csv", "name,x,y\n")
        rows = text.splitlines()[1:]
        for _ in range(self.random.randint(1, 3)):
            name = self.random.choice(["b-c", "c", "d", "e", "f", "g"])
            if any(row.startswith(f"{name},") for row in rows) and self.random.random() < 0.3:
                rows = [row for row in rows if not row.startswith(f"{name},")]
            else:
                row = f"{name},{self.random.choice(['1', '2', '1.0', 'true'])},{self.random.randint(0, 1)}"
                rows = [old for old in rows if not old.startswith(f"{name},")] + [row]
        self.random.shuffle(rows)
        if self.random.random() < 0.1:
            rows.append(self.random.choice(["h,1", "i,1,1\ni,2,2", '"open', "/,1,1"]))
        self.odd["data/t.csv"] = "\n".join(["name,x,y", *rows]) + "\n"

    def change_flowset(self) -> None:
        """Change one of the fields of a set."""
        if not self._sets():
            self.add_flowset()
        sets = [self.extra[name] for name in self._sets()]
        document = self.random.choice(sets)
        spec = document["spec"]
        match self.random.randint(0, 8):
            case 0:
                spec["template"] |= {"priority": self.random.randint(0, 2)}
            case 1:
                argument = self.random.choice(
                    [{"$item": "x"}, "{x}", 1, {"$path": "data/a.txt"}, self._reference()]
                )
                spec["template"]["jobs"][0]["args"] = [argument]
            case 2:
                match = self.random.choice([{"keys": ["b*"]}, {"keys": ["nothing"]}, {"match": {"x": ">0"}}])
                spec["overrides"] = [match | {"set": {"worker": self.random.choice(["w1", "w2"])}}]
            case 3:
                spec["limits"] = self.random.choice([{"max_items": 2}, {"max_removed": 1}, {}])
            case 4:
                spec["items"]["matrix"] = {"m": self.random.choice([[1], [1, 2], [1.0, 2]])}
                spec["key"] = spec["key"].removesuffix("-{m}") + "-{m}"
            case 5:
                spec["on_removed"] = self.random.choice(["keep", "cancel", "delete"])
            case 6:
                spec["suspend"] = self.random.choice([True, False])
            case 7:
                document["metadata"]["labels"] = {"group": self.random.choice(["a", "b"])}
            case _:
                self.names += 1
                metadata = document["metadata"]
                if self.random.random() < 0.7:
                    metadata["previous_names"] = [metadata["name"]]
                metadata["name"] = f"set{self.names}"

    def remove_flowset(self) -> None:
        if self._sets():
            del self.extra[self.random.choice(self._sets())]

    def _sets(self) -> list[str]:
        return [name for name, document in self.extra.items() if document["kind"] == "FlowSet"]

    def take_name_of_item(self) -> None:
        """Give a document, or let a flow refer to, the name of an item."""
        name = self.random.choice(["a-b-c", "a-c", "a-d"])
        argument = self.random.choice([1, {"$output": f"{name}/j"}])
        own = name if argument == 1 else "special0"
        job = {"id": "j", "function": "reconciler.examples.value", "args": [argument]}
        self.extra[own] = _manifest("Flow", own, {"jobs": [job]})

    # passes and jobs ----------------------------------------------------------------------------------

    def session(self) -> Session:
        """Return a new session at the last commit."""
        return Session(self.source, self.store)

    def reconcile(self) -> None:
        """Make a pass, as far as the revision can be applied."""
        session = self.session()
        try:
            applied = session.reconcile(Silent(), allow_prune=self.random.random() < 0.8)
        except (InputError, RefusedError):
            return
        if applied.outcome is None:
            session.record_outcome(applied)

    def live(self) -> None:
        """Let some jobs start, end, generate others, or be the object of a command."""
        likely = self.random.choice([0.1, 0.5])

        def change(writer: Writer) -> None:
            for job in list(writer.jobs()):
                present = writer.job(job.id)
                if self.random.random() < likely and present is not None:
                    self._step(writer, present)

        self.store.write(change)

    def _step(self, writer: Writer, job: JobRecord) -> None:
        self.clock += 1
        if job.state in ACTIVE and job.cancelling:
            move(writer, job, JobState.USER_STOPPED, self.clock, cancellation=NOT_CANCELLED)
        elif self.random.random() < 0.15:
            operation = self.random.choice(list(JobOperation))
            plan = OperationPlanner(writer, list(self.workers)).plan(operation, [job])
            OperationRunner(writer, plan, "ada", f"reconcile {operation}", self.clock).carry_out()
        elif job.state in (JobState.READY, JobState.WAITING):
            attempt = job.attempt_with(number=job.attempt.number + 1)
            move(writer, job, self.random.choice(sorted(ACTIVE)), self.clock, attempt=attempt)
        elif job.state in ACTIVE:
            state = self.random.choice([JobState.COMPLETED, JobState.COMPLETED, JobState.FAILED])
            done = move(writer, job, state, self.clock)
            if state is JobState.COMPLETED and job.current and self.random.random() < 0.2:
                self._generate(writer, done)

    def _generate(self, writer: Writer, job: JobRecord) -> None:
        number = writer.next_number("sequence")
        by = GeneratedBy(uuid=job.uuid, index=job.index, attempt=job.attempt.number)
        writer.put_job(
            JobRecord(
                uuid=f"generated-{number}", index=1, flow=job.flow, key=f"g{number}", name="g",
                function="code.generated", state=JobState.READY, config=job.config, content="c",
                generated_by=by, sequence=number,
            )
        )  # fmt: skip

    def close(self) -> None:
        """Close the store."""
        self.store.close()


def _manifest(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


Edit = Callable[[RepositoryModel, random.Random], None]

BROKEN = ("more/z.yaml", "more/y.yml", "more/0.yaml")
"""Files that a history breaks."""

ODD_EDITS = (
    "note_beside", "note_beside", "note_beside", "change_code", "change_file", "remove_file",
    "break_document", "mend_documents", "mend_documents", "mend_documents", "add_special_flow",
    "add_special_flow", "add_special_flow", "rename_special_flow", "claim_name", "remove_special_flow",
    "duplicate_flow", "label_rule", "change_worker", "change_project", "add_flowset", "change_flowset",
    "change_flowset", "change_table", "change_table", "remove_flowset", "take_name_of_item",
)  # fmt: skip
"""Names of the methods of :class:`History` that edit the repository."""
