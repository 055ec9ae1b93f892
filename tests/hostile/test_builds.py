"""The code of a flow decides about the jobs of this flow, and about nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.build.test_builder import Bench
from tests.support import Repository, isolate

HELPER = """
import os, struct, msgspec
from pathlib import Path

def write(data, *places):
    for place in places:
        for fd in Path(f'/proc/{place}/fd').iterdir():
            try:
                flags = int(Path(f'/proc/{place}/fdinfo/{fd.name}').read_text().split()[3], 8)
                if 'pipe' in os.readlink(fd) and flags & os.O_WRONLY:
                    with open(fd, 'wb', buffering=0) as stream:
                        stream.write(data)
            except OSError:
                pass

def answer(**fields):
    data = msgspec.msgpack.encode(fields)
    return struct.pack('>Q', len(data)) + data

JOB = dict(key='x', uuid='5e0a4b7c-1111-4111-8111-111111111111', index=1, name='stolen', function='os.system',
           content='c', parents=[], on_missing='error', own={}, files=[], hosts=[], payload=b'{}')
"""

FORGED = {
    "an answer without a token": "answer(jobs=[JOB])",
    "an answer with another token": "answer(token='0' * 32, jobs=[JOB])",
    "an answer of another type": "answer(token=5, jobs='no')",
    "an empty answer": "answer()",
    "a list": "struct.pack('>Q', 1) + bytes([0x90])",
    "no MessagePack": "struct.pack('>Q', 3) + bytes([0xc1] * 3)",
    "nested without end": "struct.pack('>Q', 30_000) + bytes([0x91] * 30_000)",
}
LENGTHS = {
    "the greatest number": "bytes([255] * 8)",
    "a terabyte": "struct.pack('>Q', 1 << 40)",
    "no end": "bytes([255] * 100)",
}
STOLEN = {
    "a uuid": "identity.job_uuid = lambda *_: '5e0a4b7c-1111-4111-8111-111111111111'",
    "the uuid of another flow": "real = identity.job_uuid\n"
    "identity.job_uuid = lambda _, *rest: real('5e0a4b7c-1111-4111-8111-111111111111', *rest)",
    "a uuid with a path": "identity.job_uuid = lambda *_: '../../etc'",
    "a uuid with a command": "identity.job_uuid = lambda *_: 'a\\n$(id)'",
    "twice the same uuid": "real = identity.job_uuid\n"
    "identity.job_uuid = lambda one, content, _: real(one, content, 0)",
    "the second uuid of a content": "real = identity.job_uuid\n"
    "identity.job_uuid = lambda one, content, _: real(one, content, 1)",
}


def bodies() -> dict[str, str]:
    """Return what the factories of the flows do, each followed by one that does nothing of the kind."""
    write = "import helper\nhelper.write({}, {})\nreturn named('made')"
    found = {}
    for name, data in (FORGED | LENGTHS).items():
        data = data.replace("answer(", "helper.answer(").replace("[JOB]", "[helper.JOB]")
        data = data.replace("struct.", "helper.struct.")
        found[f"own: {name}"] = write.format(data, "'self'")
        found[f"all: {name}"] = write.format(data, "os.getppid()")
        found[f"after: {name}"] = "return named('next')"
    for name, change in STOLEN.items():
        flow = "return Flow([named('a'), named('b')])"
        found[f"stolen: {name}"] = f"from reconciler.build import identity\n{change}\n{flow}"
    return found | {"last": "return named('next')"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What came of each flow: the names of its jobs, or the problem."""
    root = tmp_path_factory.mktemp("forged")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, root / "home")
        bench = Bench(Repository(root / "repository"), root / "state")
        flows = bodies()
        try:
            numbered = bench.build(*flows.values(), helper=HELPER)
        finally:
            if bench.builder is not None:
                bench.builder.close()
    # Flows are built in the order of their names: f0, f1, f10, ...
    order = sorted(range(len(flows)), key=lambda number: f"f{number}")
    found = dict(zip(order, numbered, strict=True))
    return {name: found[number] for number, name in enumerate(flows)}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_answer(built: dict[str, str], name: str) -> None:
    """To its own stream, or to that of all answers: no other flow gets it as its own."""
    assert "wrote to the stream" in built[f"own: {name}"]
    assert built[f"all: {name}"] == "made"
    assert built[f"after: {name}"] == "next"


@pytest.mark.parametrize("name", LENGTHS)
def test_the_length_of_a_forged_answer(built: dict[str, str], name: str) -> None:
    assert "its build process" in built[f"own: {name}"]
    assert "its build process" in built[f"all: {name}"]
    assert built[f"after: {name}"] == "next"


@pytest.mark.parametrize("name", STOLEN)
def test_a_flow_names_only_jobs_of_its_own(built: dict[str, str], name: str) -> None:
    assert "cannot be built" in built[f"stolen: {name}"] and "uuid" in built[f"stolen: {name}"]


def test_all_other_flows_are_built(built: dict[str, str]) -> None:
    assert not [name for name, found in built.items() if "stolen" in found or "OSError" in found]
    assert built["last"] == "next"


@pytest.fixture
def bench(repository: Repository, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(repository, tmp_path / "state")
    yield made
    if made.builder is not None:
        made.builder.close()


SECRETS = ("GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "RECONCILER_STATE_DIR", "PMG_MAPI_KEY")


@pytest.mark.parametrize("passed", [False, True])
def test_a_build_gets_only_variables_that_it_needs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, passed: bool
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "canary")
    if passed:
        monkeypatch.setenv("RECONCILER_BUILD_ENV", "PMG_MAPI_KEY, NOT_SET")
    body = "return named(','.join(sorted(k for k, v in os.environ.items() if v == 'canary')) or 'none')"
    assert bench.build(body) == ["PMG_MAPI_KEY" if passed else "none"]
