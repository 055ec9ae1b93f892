"""The files of a new campaign, as :class:`string.Template` texts: ``$$`` is a dollar sign of the file.

They are filled with the ``name`` of the project, its Python ``package``, the name of the ``worker`` and the
folder of the ``schemas``. The CI files are not filled: they are full of dollar signs of their own.
"""

PROJECT = """\
# yaml-language-server: $$schema=./$schemas/project.schema.json
# The project: what applies to all flows. `reconcile explain Project.spec`
# Each *.yaml file in workers/, exec_configs/, flows/, makers/ and rules/ is a manifest.
apiVersion: reconciler/v1
kind: Project
metadata: {name: $name}
spec:
  defaults: {worker: $worker}
  python_path: [lib]   # your code: importable when flows are built and when jobs run
"""

LOCAL_WORKER = """\
# yaml-language-server: $$schema=../$schemas/worker.schema.json
# Where jobs run: this machine. `reconcile explain Worker.spec`
apiVersion: reconciler/v1
kind: Worker
metadata: {name: $worker}
spec:
  type: local
  scheduler_type: shell
  work_dir: ~/reconciler-work/$name    # each job gets a directory below it
  max_jobs: 2                          # how many jobs run at the same time
"""

REMOTE_WORKER = """\
# yaml-language-server: $$schema=../$schemas/worker.schema.json
# Where jobs run: a cluster, over SSH. `reconcile explain Worker.spec`
# Check it with `reconcile doctor $worker`.
apiVersion: reconciler/v1
kind: Worker
metadata: {name: $worker}
spec:
  type: remote
  host: $host$user
  scheduler_type: $scheduler
  work_dir: ~/reconciler-work/$name    # on the cluster, on a file system that its nodes share
  python: python3                      # 3.9 or newer with jobflow; better an absolute path: ~/venv/bin/python
  max_jobs: 20                         # how many of your jobs may be in the queue
$resources"""

RESOURCES = {
    "slurm": '  resources: {ntasks: 1, time: "0:10:00"}   # add your partition and account\n',
    "pbs": '  resources: {select: "1:ncpus=1", walltime: "0:10:00"}   # add your queue and account\n',
    "sge": '  resources: {walltime: "0:10:00"}     # add your queue and project\n',
}
"""Resources that each scheduler accepts in its own words; a shell takes none."""

FLOW = """\
# yaml-language-server: $$schema=../$schemas/flow.schema.json
# Two jobs, and a third that needs the outputs of both. `reconcile explain Flow.spec`
apiVersion: reconciler/v1
kind: Flow
metadata:
  name: hello
  labels: {campaign: start}
spec:
  jobs:
    - {id: first, function: $package.jobs.square, args: [3]}
    - {id: second, function: $package.jobs.square, args: [4]}
    - id: total
      function: $package.jobs.add
      args: [{$$output: first}, {$$output: second}]
"""

RULE = """\
# yaml-language-server: $$schema=../$schemas/override-rule.schema.json
# A rule changes how matching jobs run, whatever their flow says. `reconcile explain OverrideRule.spec`
apiVersion: reconciler/v1
kind: OverrideRule
metadata: {name: totals-first}
spec:
  name_filter: total      # every job whose name contains it
  set: {priority: 10}
"""

PACKAGE = '''\
"""The code of the campaign $name."""
'''

JOBS = '''\
"""The functions that jobs call. A change of this code never removes a result that exists."""

from __future__ import annotations


def square(number: float) -> float:
    """Return the square of a number."""
    return number * number


def add(first: float, second: float) -> float:
    """Return the sum of two numbers."""
    return first + second
'''

README = """\
# $name

A campaign for reconciler: `flows/` says what to compute, `workers/` where, `rules/` how;
`lib/$package` is the code.

```console
reconcile validate              # checks all manifests of the last commit
reconcile plan                  # shows what that commit would change
reconcile --once --wait         # runs it, and waits
reconcile get flows             # shows the status
reconcile output hello/total    # prints a result
reconcile watch                 # as a daemon: acts on every commit
```

Only committed files count.
"""

GITIGNORE = """\
__pycache__/
*.py[cod]
.venv/
plan.json
plan.md
"""

EXTENSIONS = """\
{
  "recommendations": ["redhat.vscode-yaml"]
}
"""

GITHUB = """\
# Checks every pull request, and writes what it would change into one comment.
name: plan
on: pull_request
permissions:
  contents: read
  pull-requests: write
env:
  RECONCILER: "git+https://EDIT-ME"    # the repository or package that has reconciler
jobs:
  plan:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
        with:
          fetch-depth: 0
      - run: pipx install "$RECONCILER"
      - run: reconcile validate
      - name: Plan
        run: |
          code=0
          reconcile plan --base "origin/$GITHUB_BASE_REF" -o markdown > plan.md || code=$?
          cat plan.md >> "$GITHUB_STEP_SUMMARY"
          echo "code=$code" >> "$GITHUB_ENV"
      - name: Comment
        if: github.event.pull_request.head.repo.full_name == github.repository
        env:
          GH_TOKEN: ${{ github.token }}
          COMMENTS: repos/${{ github.repository }}/issues/${{ github.event.number }}/comments
        run: |
          mine='.[] | select(.user.login == "github-actions[bot]")
            | select(.body | startswith("<!-- reconciler-plan -->")) | .id'
          id=$(gh api --paginate "$COMMENTS" --jq "$mine" | head -n 1)
          if [ -n "$id" ]; then
            gh api --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$id" -F body=@plan.md
          else
            gh api "$COMMENTS" -F body=@plan.md
          fi
      - name: Verdict
        run: exit "$code"
"""

GITLAB = """\
# Checks every merge request, and writes what it would change into one comment.
# PLAN_TOKEN: a project access token with the scope `api`, as a masked CI variable.
plan:
  image: python:3.12
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
  variables:
    RECONCILER: "git+https://EDIT-ME"    # the repository or package that has reconciler
    GIT_DEPTH: "0"
    NOTES: $CI_API_V4_URL/projects/$CI_PROJECT_ID/merge_requests/$CI_MERGE_REQUEST_IID/notes
  before_script:
    - apt-get update -qq && apt-get install -y -qq jq
    - pip install --quiet "$RECONCILER"
  script:
    - reconcile validate
    - code=0
    - reconcile plan --base "$CI_MERGE_REQUEST_DIFF_BASE_SHA" -o markdown > plan.md || code=$?
    - |
      id=$(curl --fail --silent --header "PRIVATE-TOKEN: $PLAN_TOKEN" "$NOTES?per_page=100" |
        jq 'map(select(.body | startswith("<!-- reconciler-plan -->")))[0].id // empty')
      if [ -n "$id" ]; then method=PUT; else method=POST; fi
      curl --fail --silent --output /dev/null --request "$method" --header "PRIVATE-TOKEN: $PLAN_TOKEN" \\
        --data-urlencode body@plan.md "$NOTES${id:+/$id}"
    - exit "$code"
  artifacts:
    when: always
    paths: [plan.md]
"""
