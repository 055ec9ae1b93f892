"""What the tests of job outputs share: documents, and ways to look below the store."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from reconciler.actual.db import close_database, open_database
from reconciler.actual.jobstore import LMDBStore

Document = dict[str, Any]
REPOSITORY = Path(__file__).parents[2]
COMMON = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ODD = uuid.UUID(int=7)
DOCS: list[Document] = [
    {
        "uuid": f"u{n}",
        "index": 1 + n % 3,
        "n": n,
        "name": ["relax", "static", "ünïcode", "Relax 2"][n % 4],
        "mixed": [None, True, n, f"s{n}", {"x": n}, 0.5, b"b", datetime(2025, 1, 1 + n)][n % 8],
        "output": {
            "energy": -n / 3,
            "sites": [{"el": "Si", "z": n}, {"el": "O", "z": -n}],
            "xs": list(range(n % 5)),
        },
        "metadata": {"tags": ["a", "b"][: n % 3]} if n % 2 else None,
        "completed_at": datetime(2025, 1, 1, 0, 0, n),
    }
    for n in range(16)
] + [{"uuid": "u3", "index": 7, "n": 100, "nan": math.nan}, {"uuid": "bare", "n": 101}]


def plain(docs: Any) -> list[Document]:
    """Documents as comparable text, without Mongo's _id."""
    return [{key: value for key, value in doc.items() if key != "_id"} for doc in docs]


@contextmanager
def transaction(store: LMDBStore) -> Iterator[Any]:
    """A snapshot of the directory of a store, through the database below it."""
    database = open_database(store.directory)
    with database.read() as txn:
        yield txn
    close_database(database)


def change(store: LMDBStore, by: Callable[[Any], Any]) -> Any:
    database = open_database(store.directory)
    try:
        return database.write(by)
    finally:
        close_database(database)


def run_python(code: str) -> str:
    program = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(program, capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_number(docs: Any) -> str:
    return repr(sorted(plain(docs), key=lambda doc: doc["n"]))
