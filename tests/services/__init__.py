"""Real sshd, Slurm and Grid Engine for the tests: started by the fixtures below, all on this machine.

``make services`` installs the programs; one that is missing fails the tests that need it, it skips none.
What is shared is started once for a test run, by the first test that wants it, and ended after the last:
nothing is left behind, however the run ends (:mod:`tests.services.shared`).

Shared, session scope; never stop, freeze or kill them:

``sshd``, ``gateway``   :class:`~tests.services.sshd.Sshd`: two servers, for jumps from one to the other
``slurm``               :class:`~tests.services.slurm.Slurm`: partitions ``debug`` and ``batch``, two nodes
``short_slurm``         one that forgets finished jobs after two seconds
``slurm_sshd``          an sshd in whose sessions ``slurm`` is found
``sge``                 :class:`~tests.services.gridengine.GridEngine`: ``all.q``, ``batch.q``, PE ``smp``
``login``               :class:`~tests.services.login.Login`: who logs in over SSH, with a clean home

Of one test, to do anything with:

``new_sshd(login=, name=, env=, sftp=, lines=)``   0.1 s
``new_slurm(nodes=, cpus=, min_job_age=)``         1 s
``new_sge(slots=)``                                3 s
``new_account(shell=, home=)``                     a throw-away unix user (the present one, without root)
``slurm_env``, ``sge_env``                         the shared ones, found by this process: for local workers

The same test everywhere: ``@pytest.mark.parametrize("place", PLACES, indirect=True)`` gives a
:class:`~tests.services.places.Place`: the spec of a Worker, its work directory, and the environment set.

Examples::

    done = subprocess.run(sshd.command("bash", "-s"), input="id -un", capture_output=True, text=True)
    spec = {"type": "remote", ..., **sshd.worker_fields(gateway)}
    server = new_sshd(sftp=False, env=slurm.env)
    server.kill_sessions()            # a lost connection; server.stop(): nobody listens any more
    with server.frozen(): ...         # a host that hangs
    cluster.kill_controller(); cluster.start_controller(); cluster.node_down("n1")
"""

from tests.services.places import PLACES, Place

__all__ = ["PLACES", "Place"]
