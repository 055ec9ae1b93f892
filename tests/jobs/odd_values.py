"""Values of the run config that Python code can set, with what they become; ``None``: refused.

Used in a job's ``manager_config``, once as a factory sets it and once as a generated job brings it.
"""

from __future__ import annotations

import json
from typing import Any

from monty.json import MontyEncoder
from qtoolkit.core.data_objects import ProcessPlacement, QResources

NAN, INFINITY = float("nan"), float("inf")


def serialised(value: Any) -> Any:
    """Return a value as monty writes it."""
    return json.loads(json.dumps(value, cls=MontyEncoder))


EXECUTION_CONFIG = {
    "@module": "jobflow_remote.config.base", "@class": "ExecutionConfig", "@version": "1.0.1",
    "modules": ["vasp/6.4"], "export": None, "pre_run": "ulimit -s unlimited", "post_run": None,
}  # fmt: skip

TAKEN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"priority": 5}, {"priority": 5}),
    ({"priority": 5.0}, {"priority": 5}),
    ({"priority": "5"}, {"priority": 5}),
    ({"priority": " 5 "}, {"priority": 5}),
    ({"priority": "-3"}, {"priority": -3}),
    ({"priority": 0}, {"priority": 0}),
    ({"priority": -0.0}, {"priority": 0}),
    ({"priority": 2**31 - 1}, {"priority": 2**31 - 1}),
    ({"priority": -(2**31)}, {"priority": -(2**31)}),
    ({"priority": None}, {}),
    ({"worker": "w1"}, {"worker": "w1"}),
    ({"worker": None}, {}),
    ({"exec_config": None}, {}),
    ({"exec_config": {}}, {"exec_config": {}}),
    ({"exec_config": {"pre_run": "a", "post_run": None}}, {"exec_config": {"pre_run": "a"}}),
    ({"exec_config": {"export": {"A": "1"}}}, {"exec_config": {"export": {"A": "1"}}}),
    (
        {"exec_config": EXECUTION_CONFIG},
        {"exec_config": {"modules": ["vasp/6.4"], "pre_run": "ulimit -s unlimited"}},
    ),
    ({"resources": None}, {}),
    ({"resources": {}}, {"resources": {}}),
    ({"resources": {"time": None}}, {"resources": {}}),
    (
        {"resources": serialised(QResources(processes=4))},
        {"qresources": {"processes": 4, "process_placement": "NO_CONSTRAINTS"}},
    ),
    (
        {"resources": QResources(processes=4).as_dict()},
        {"qresources": {"processes": 4, "process_placement": "NO_CONSTRAINTS"}},
    ),
    ({"resources": serialised(QResources())}, {"qresources": {}}),
    (
        {"resources": serialised(QResources(nodes=2, processes_per_node=3, time_limit=60))},
        {
            "qresources": {
                "nodes": 2, "processes_per_node": 3, "time_limit": 60,
                "process_placement": "EVENLY_DISTRIBUTED",
            }
        },
    ),
    (
        {"resources": serialised(QResources(processes=1, process_placement=ProcessPlacement.SCATTERED))},
        {"qresources": {"processes": 1, "process_placement": "SCATTERED"}},
    ),
    (
        {"resources": serialised(QResources(processes=1, scheduler_kwargs={"constraint": "rome"}))},
        {
            "qresources": {
                "processes": 1, "process_placement": "NO_CONSTRAINTS",
                "scheduler_kwargs": {"constraint": "rome"},
            }
        },
    ),
    ({"qresources": {"processes": 2}}, {"qresources": {"processes": 2}}),
    ({"retries": {"limit": 1}}, {"retries": {"limit": 1}}),
    ({"retries": {"limit": 0}}, {"retries": {"limit": 0}}),
    ({"retries": None}, {}),
    ({"_fworker": "elsewhere", "_launch_dir": 5}, {}),
]  # fmt: skip
"""(what Python code sets, the run config of the job)"""

REFUSED: list[tuple[Any, str]] = [
    ({"priority": 5.5}, "priority"),
    ({"priority": "high"}, "priority"),
    ({"priority": ""}, "priority"),
    ({"priority": 2**31}, "at most 2147483647"),
    ({"priority": -(2**31) - 1}, "at least -2147483648"),
    ({"priority": 2**63}, "priority"),
    ({"priority": -(2**63)}, "priority"),
    ({"priority": 2**70}, "priority"),
    ({"priority": 10**40}, "priority"),
    ({"priority": 1e300}, "priority"),
    ({"priority": True}, "the boolean True"),
    ({"priority": False}, "priority"),
    ({"priority": NAN}, "priority"),
    ({"priority": INFINITY}, "priority"),
    ({"priority": [5]}, "priority"),
    ({"priority": {"a": 1}}, "priority"),
    ({"worker": 5}, "worker"),
    ({"worker": ""}, "worker"),
    ({"worker": "a b"}, "worker"),
    ({"worker": "w1\n"}, "worker"),
    ({"worker": "w\x00"}, "worker"),
    ({"worker": "../w1"}, "worker"),
    ({"worker": "w" * 101}, "worker"),
    ({"worker": ["w1"]}, "worker"),
    ({"worker": {"name": "w1"}}, "worker"),
    ({"worker": True}, "worker"),
    ({"resources": "x"}, "resources"),
    ({"resources": 5}, "resources"),
    ({"resources": ["nodes"]}, "resources"),
    ({"resources": True}, "resources"),
    ({"resources": {"nodes": [1]}}, "resources.nodes"),
    ({"resources": {"nodes": NAN}}, "resources.nodes"),
    ({"resources": {}, "qresources": {}}, "exclude each other"),
    ({"resources": serialised(QResources(processes=1)), "qresources": {}}, "qresources"),
    ({"qresources": 5}, "qresources"),
    ({"qresources": {"processes": [1]}}, "qresources.processes"),
    ({"qresources": {"processes": 1, "scheduler_kwargs": "x"}}, "scheduler_kwargs"),
    ({"exec_config": 5}, "exec_config"),
    ({"exec_config": "a b"}, "exec_config"),
    ({"exec_config": ["v1"]}, "exec_config"),
    ({"exec_config": {"pre_runs": "x"}}, "did you mean 'pre_run'"),
    ({"exec_config": {"pre_run": 5}}, "exec_config.pre_run"),
    ({"exec_config": {"modules": "vasp"}}, "exec_config.modules"),
    ({"exec_config": {"modules": ["a; rm -rf"]}}, "exec_config.modules"),
    ({"exec_config": {"export": {"A": 1}}}, "exec_config.export"),
    ({"exec_config": {"export": {"A B": "1"}}}, "exec_config"),
    ({"retries": 5}, "retries"),
    ({"retries": {"limits": 1}}, "did you mean 'limit'"),
    ({"retries": {"limit": -1}}, "retries.limit"),
    ({"retries": {"limit": 1, "on": ["wall"]}}, "retries.on"),
    ({"prioritty": 5}, "did you mean 'priority'"),
    ({"workers": "w1"}, "did you mean 'worker'"),
]
"""(what Python code sets, a part of the reason)"""
