"""``reconcile import jobflow-remote``: a project file becomes manifests; no field gets lost silently."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reconciler.desired.source.git import Source
from reconciler.desired.state import load_desired
from reconciler.desired.yaml.reader import parse_file
from tests.desired.test_flows import NoCache
from tests.support import Repository

Program = Callable[..., Any]

GATEWAY = {
    "host": "jump.example.org",
    "user": "ada",
    "port": 2222,
    "password": "hunter2-jump",
    "key_filename": "~/.ssh/jump",
    "passphrase": "hunter2-jump-key",
    "gateway": "ssh -W %h:%p outer.example.org",
    "connect_kwargs": {"look_for_keys": False, "password": "hunter2-kwargs"},
}
BASE = {
    "scheduler_type": "slurm",
    "work_dir": "/scratch/ada/runs",
    "resources": {"nodes": 1, "partition": "short"},
    "pre_run": "source /env/bin/activate\nulimit -s unlimited\n",
    "post_run": "echo done",
    "execution_cmd": "apptainer exec image.sif jf -fe execution run {}",
    "timeout_execute": 90,
    "max_jobs": 40,
    "scheduler_username": "ada2",
    "sanitize_command": True,
    "delay_download": 10,
}
REMOTE = {
    **BASE,
    "type": "separated_transfer",
    "host": "login.example.org",
    "user": "ada",
    "port": 22,
    "password": "hunter2-login",
    "key_filename": ["~/.ssh/a", "~/.ssh/b"],
    "passphrase": "hunter2-key",
    "gateway": GATEWAY,
    "forward_agent": True,
    "connect_timeout": 30,
    "connect_kwargs": {"banner_timeout": 60, "passphrase": "hunter2-again"},
    "inline_ssh_env": True,
    "keepalive": 30,
    "shell_cmd": "zsh",
    "login_shell": False,
    "interactive_login": True,
    "transfer": {"host": "dtn.example.org", "password": "hunter2-dtn", "connect_kwargs": {"a": 1}},
}
BATCH = {
    "jobs_handle_dir": "/scratch/ada/handle",
    "work_dir": "/scratch/ada/batch",
    "max_jobs_per_batch": 100,
    "max_wait": 30,
    "max_time": 3600,
    "parallel_jobs": 4,
    "sleep_time": 5,
}
STORE = {"type": "MongoStore", "database": "db", "username": "ada", "password": "hunter2-db"}
FULL: dict[str, Any] = {
    "name": "std",
    "base_dir": "/home/ada/.jfremote/std",
    "tmp_dir": "/tmp/jf",
    "log_dir": "/var/log/jf",
    "daemon_dir": "/run/jf",
    "log_level": "debug",
    "runner": {
        "delay_checkout": 30, "delay_check_run_status": 30, "delay_advance_status": 30,
        "delay_refresh_limited": 600, "delay_update_batch": 60, "delay_ping_db": 3600,
        "lock_timeout": 86400, "delete_tmp_folder": True, "max_step_attempts": 3,
        "delta_retry": [30, 300, 1200],
    },
    "workers": {
        "hpc": REMOTE,
        "batch": {**BASE, "type": "local", "scheduler_type": "shell", "max_jobs": 2, "batch": BATCH,
                  "resources": None},
        "generic": {"type": "local", "scheduler_type": "pbs", "work_dir": "/w",
                    "resources": {"processes": 4, "time_limit": 3600, "qos": None}, "max_jobs": 0},
        "objects": {"type": "local", "scheduler_type": {"@module": "qtoolkit.io.sge", "@class": "SGEIO"},
                    "work_dir": "/w", "resources": {"@class": "QResources", "@module": "q", "processes": 2}},
        "odd name!": {"type": "local", "scheduler_type": "shell", "work_dir": "/w", "from_the_future": 1},
    },
    "queue": {
        "store": STORE, "flows_collection": "f", "auxiliary_collection": "a", "batches_collection": "b",
        "db_id_prefix": "p",
    },
    "exec_config": {
        "vasp": {
            "modules": ["vasp/6.4"],
            "export": {"PATH": "/opt/bin:$PATH", "OMP_NUM_THREADS": 4, "API_TOKEN": "hunter2-token"},
            "pre_run": "conda activate env",
            "post_run": "date",
        },
        "empty": {},
    },
    "jobstore": {
        "docs_store": STORE,
        "additional_stores": {"data": {"type": "MongoURIStore", "uri": "mongodb://ada:hunter2-uri@db/x"}},
    },
    "remote_jobstore": {"docs_store": STORE},
    "optional_jobstores": {"other": {"docs_store": STORE}},
    "metadata": {"group": "metals"},
}  # fmt: skip
"""Every field of a project file of jobflow-remote 1.0.1."""


def fields(value: Any) -> Iterator[str]:
    """Yield the names of the fields of the file, without the content of free mappings."""
    for key, inner in value.items():
        yield key
        if key in ("workers", "exec_config"):
            for one in inner.values():
                yield from one
        if key in ("batch", "transfer", "gateway"):
            yield from fields(inner)


def toml(value: dict[str, Any], *path: str) -> str:
    """Return data as TOML; it has no null."""
    rest = {key: inner for key, inner in value.items() if isinstance(inner, dict)}
    own = {key: inner for key, inner in value.items() if inner is not None and key not in rest}
    text = f"[{'.'.join(json.dumps(step) for step in path)}]\n" if path else ""
    text += "".join(f"{json.dumps(key)} = {json.dumps(inner)}\n" for key, inner in own.items())
    return text + "".join(toml(inner, *path, key) for key, inner in rest.items())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "campaign"


def write(tmp_path: Path, form: str, project: dict[str, Any]) -> Path:
    file = tmp_path / f"std.{form}"
    if form == "yaml":
        YAML().dump(project, file)
    else:
        file.write_text(json.dumps(project) if form == "json" else toml(project))
    return file


def documents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*.yaml"))}


def specs(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path, text in documents(folder).items():
        (document,) = parse_file(text.encode()).documents
        assert document.valid, (path, text, parse_file(text.encode()).diagnostics)
        found[path] = document.content["spec"]
    return found


@pytest.mark.parametrize("form", ["yaml", "json", "toml"])
def test_every_field_is_taken_over_or_named(
    program: Program, tmp_path: Path, folder: Path, form: str
) -> None:
    done = program("import", "jobflow-remote", str(write(tmp_path, form, FULL)), str(folder))
    assert done.code == 0, done.stderr
    written = documents(folder)
    whole = "\n".join(written.values())
    missing = {key for key in fields(FULL) if key not in whole} - {"name", "workers", "exec_config"}
    assert missing == set()
    assert "hunter2" not in whole + done.stdout + done.stderr
    hpc = specs(folder)["workers/hpc.yaml"]
    assert (hpc["type"], hpc["transfer"]["host"]) == ("remote", "dtn.example.org")
    assert hpc["password"] == {"env": "HPC_PASSWORD"}
    assert hpc["gateway"]["passphrase"] == {"env": "HPC_GATEWAY_PASSPHRASE"}
    assert (hpc["pre_run"], hpc["login_shell"]) == (REMOTE["pre_run"], False)
    batch = specs(folder)["workers/batch.yaml"]
    assert batch["batch"] == {"parallel_jobs": 4, "max_jobs_per_batch": 100, "max_wait": 30, "max_time": 3600}
    assert specs(folder)["workers/generic.yaml"]["qresources"] == {"processes": 4, "time_limit": 3600}
    assert "max_jobs" not in specs(folder)["workers/generic.yaml"]
    objects = specs(folder)["workers/objects.yaml"]
    assert (objects["scheduler_type"], objects["qresources"]) == ("sge", {"processes": 2})
    vasp = specs(folder)["exec_configs/vasp.yaml"]
    assert (vasp["export"]["OMP_NUM_THREADS"], vasp["expand"]) == ("4", True)
    project = specs(folder)["reconciler.yaml"]
    assert project["defaults"] == {"worker": "hpc"}
    data = project["jobstore"]["additional_stores"]["data"]
    assert data["uri"] == {"env": "JOBSTORE_ADDITIONAL_STORES_DATA_URI"}
    assert "the worker 'odd name!' is called 'odd-name' now" in done.stderr
    assert "set the environment variable HPC_PASSWORD" in done.stderr
    assert (
        "# from_the_future: 1   <- not taken over: it has no counterpart" in written["workers/odd-name.yaml"]
    )


def test_the_result_is_a_valid_campaign(program: Program, tmp_path: Path, repository: Repository) -> None:
    assert (
        program("import", "jobflow-remote", str(write(tmp_path, "yaml", FULL)), str(repository.path)).code
        == 0
    )
    repository.commit()
    source = Source(repository.path / ".git", repository.path, None, "")
    state = load_desired(source, source.revision(), NoCache(), {}).state
    assert (state.diagnostics, state.project_name) == ([], "std")
    assert set(state.workers) == {"hpc", "batch", "generic", "objects", "odd-name"}
    assert set(state.exec_configs) == {"vasp", "empty"}


SIMPLE = """
name: std
workers:
  example_worker:
    type: remote
    scheduler_type: slurm
    work_dir: /path/to/run/folder
    pre_run: source /path/to/python/environment/activate
    timeout_execute: 60
    host: remote.host.net
    user: bob
queue:
  store: {type: MongoStore, host: localhost, database: db_name, username: bob, password: secret_password}
exec_config: {}
jobstore: {docs_store: {type: MemoryStore}}
"""
"""The example of the documentation of jobflow-remote."""


def test_the_example_of_its_documentation(program: Program, tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "std.yaml"
    file.write_text(SIMPLE)
    assert program("import", "jobflow-remote", str(file), str(folder)).code == 0
    found = specs(folder)
    assert set(found) == {"reconciler.yaml", "workers/example_worker.yaml"}
    assert "jobstore" not in found["reconciler.yaml"]
    assert "secret_password" not in (folder / "reconciler.yaml").read_text()
    own = (folder / "workers/example_worker.yaml").read_text().replace("bob", "eve")
    (folder / "workers/example_worker.yaml").write_text(own)
    again = program("import", "jobflow-remote", str(file), str(folder))
    assert re.findall(r"(\w+) +(\S+)", again.stdout) == [
        ("kept", "workers/example_worker.yaml"), ("kept", "reconciler.yaml"),
    ]  # fmt: skip
    assert "eve" in (folder / "workers/example_worker.yaml").read_text()


BROKEN = {
    "a.yaml": ("workers: {a: [}\n", r"a\.yaml:1:15: "),
    "b.json": ('{"workers": \n ,}', r"b\.json:2:2: "),
    "c.toml": ("workers = \n", r"c\.toml cannot be read: .*line 1"),
    "d.yaml": ("exec_confg: {}\n", "did you mean 'exec_config'"),
    "e.yaml": ("- a\n", "it has neither workers nor exec_config"),
    "f.yaml": ("", "it has neither workers nor exec_config"),
}


@pytest.mark.parametrize(
    ("name", "content"), [(name, text) for name, (text, _) in BROKEN.items()], ids=BROKEN
)
def test_a_file_that_is_not_a_project(
    program: Program, tmp_path: Path, folder: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    done = program("import", "jobflow-remote", str(tmp_path / name), str(folder))
    assert (done.code, folder.exists()) == (2, False)
    assert re.search(BROKEN[name][1], done.stderr), done.stderr
    missing = program("import", "jobflow-remote", str(tmp_path / "nothing.yaml"), str(folder))
    assert (missing.code, "cannot be read: No such file" in missing.stderr) == (2, True)
