"""A PBS server of files, since there is no package of a real one: ``qsub``, ``qstat``, ``qdel``, ``qselect``.

It takes only the options that those of OpenPBS 23.06 take, prints what they print and ends with their codes.
Called as ``fake_pbs.py DIRECTORY PROGRAM ARGUMENTS``. Of the directory ``jobs/ID`` and ``history/ID`` are
records of ``qstat -F json``, ``down`` says that the server does not answer, ``foreign`` names jobs of others.
"""

from __future__ import annotations

import getopt
import re
import sys
from pathlib import Path

OPTIONS = {
    "qsub": "a:A:c:C:e:fhIj:J:k:l:m:M:N:o:p:q:r:R:S:u:v:VW:XzP:",
    "qstat": "ainpqrstwxu:fGHJMQEBW:T1F:D:",
    "qdel": "W:x",
    "qselect": "a:A:c:h:HJl:N:p:q:r:s:t:Tu:P:x",
}
HEAD = '{\n    "timestamp":1732417859,\n    "pbs_version":"23.06.06",\n    "pbs_server":"pbs01"'


def main(directory: Path, program: str, arguments: list[str]) -> int:
    """Do what the program does; usage errors end with 2, as there."""
    with (directory / "calls").open("a") as log:
        log.write(f"{program} {' '.join(arguments)}\n")
    try:
        pairs, words = getopt.getopt(arguments, OPTIONS[program])
    except getopt.GetoptError as error:
        return fail(f"{program}: {error}\nusage: {program}", 2)
    options = dict(pairs)
    if (directory / "down").exists():
        return fail(f"{program}: cannot connect to server pbs01 (errno=15010)", 162)
    return {"qsub": qsub, "qstat": qstat, "qdel": qdel, "qselect": qselect}[program](
        directory, options, words
    )


def fail(text: str, code: int) -> int:
    """Say why on stderr."""
    print(text, file=sys.stderr)
    return code


def qsub(directory: Path, options: dict[str, str], words: list[str]) -> int:
    """Take a script, whose name must not be that of a job that the directives cannot have."""
    text = Path(words[0]).read_text()
    queue = re.search(r"^#PBS -q (\S+)", text, re.MULTILINE)
    if queue and queue[1] == "nosuch":
        return fail("qsub: Unknown queue", 170)
    if queue and queue[1] == "full":
        return fail("qsub: would exceed queue full's per-user limit", 75)
    name = re.search(r"^#PBS -N (\S+)$", text, re.MULTILINE)
    if name and not re.fullmatch(r"[A-Za-z][\w.+-]{0,229}", name[1], re.ASCII):
        return fail("qsub: illegal -N value", 1)
    number = 100 + len(list((directory / "jobs").iterdir()))
    record = f'"Job_Name":"{name[1] if name else "STDIN"}",\n            "job_state":"Q"'
    (directory / "jobs" / f"{number}.pbs01").write_text(
        f'        "{number}.pbs01":{{\n            {record}\n        }}'
    )
    print(f"{number}.pbs01")
    return 0


def qstat(directory: Path, options: dict[str, str], words: list[str]) -> int:
    """With -E unknown ids are passed over, unless all are; then the last one is named."""
    if options.get("-F") != "json" or "-f" not in options or "-w" in options:
        return fail("qstat: conflicting options.", 2)
    found, problem, code = [], "", 0
    for word in words:
        past = directory / "history" / word
        if (directory / "jobs" / word).exists():
            found.append((directory / "jobs" / word).read_text())
        elif past.exists() and "-x" in options:
            found.append(past.read_text())
        elif past.exists():
            problem, code = f"{word} Job has finished, use -x or -H to obtain historical job information", 35
        else:
            problem, code = f"Unknown Job Id {word}", 153
        if problem and "-E" not in options:
            print(f"qstat: {problem}", file=sys.stderr)
    if "-E" in options:
        code = 0 if found else code
        if code:
            print(f"qstat: {problem}", file=sys.stderr)
    jobs = ',\n    "Jobs":{\n' + ",\n".join(found) + "\n    }" if found else ""
    sys.stdout.write(f"{HEAD}{jobs}\n}}" + ("\n" if found else ""))
    return code


def qdel(directory: Path, options: dict[str, str], words: list[str]) -> int:
    """Delete what is there and ours; say of the others why not."""
    code = 0
    foreign = (directory / "foreign").read_text().split() if (directory / "foreign").exists() else []
    for word in words:
        if word in foreign:
            code = fail(f"qdel: Unauthorized Request  {word}", 159)
        elif (directory / "jobs" / word).exists():
            (directory / "jobs" / word).rename(directory / "history" / word)
        elif (directory / "history" / word).exists():
            code = fail(f"qdel: Job has finished {word}", 35)
        else:
            code = fail(f"qdel: Unknown Job Id {word}", 153)
    return code


def qselect(directory: Path, options: dict[str, str], words: list[str]) -> int:
    """Print the ids of the jobs with a name."""
    for path in sorted((directory / "jobs").iterdir()):
        if f'"Job_Name":"{options["-N"]}"' in path.read_text():
            print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
