"""The shell commands of README and docs: read out of the text, and run as they are typed.

    python tests/support/commands.py README.md docs/*.md

A block fenced as ```sh is run, line by line and in order, by bash, in a folder of the file's own that is empty at the
start: a command may use what an earlier line made and nothing else. A line that is meant to end with another status
than 0 says so in its comment ("# exit 1: a rule fires"). ```console is for what CI cannot run (a cluster, an hour of
training): its `semnr` commands are held against the parser alone, by tests/project/test_readme.py. `pip`, `pytest`,
`make` and `git` do nothing here: CI runs them itself. Files run side by side, two at a time.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(r"^```(\w*)\s*$")
_EXIT = re.compile(r"#.*\bexit (\d)\b")
AT_ONCE = 2  # files
MOST_MEMORY = 2  # GiB: of a command of README or docs, the demo among them
_ELSEWHERE = ("pip", "pytest", "make", "git", "cd")  # by CI itself, or of the repository
_SHIMS = "".join(f"{name}() {{ :; }}; " for name in _ELSEWHERE)


class Command(NamedTuple):
    """A command, its lines joined; where it stands; how it is to end."""

    text: str
    line: int
    status: int = 0


def commands(path: Path, language: str = "sh") -> list[Command]:
    """The commands of every block of a language, in order."""
    found: list[Command] = []
    inside, held = None, ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if fence := _FENCE.match(line.strip()):
            inside, held = (fence[1] if inside is None else None), ""
            continue
        if inside != language:
            continue
        text = line.strip().removeprefix("$ ")
        if text.endswith("\\"):
            held += text[:-1]
            continue
        text, held = held + text, ""
        if text and not text.startswith("#"):
            status = _EXIT.search(text)
            found.append(Command(text, number, int(status[1]) if status else 0))
    return found


def words(command: Command) -> list[list[str]]:
    """The `semnr` calls of a command as lists of arguments."""
    import shlex

    lexer = shlex.shlex(command.text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    calls: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("&|;<>()"):
            calls.append([])
        else:
            calls[-1].append(word)
    return [call[1:] for call in calls if call[:1] == ["semnr"]]


def run(path: Path, folder: Path) -> list[str]:
    """Run the commands of a file in `folder`; what went wrong, a line each."""
    wrong = []
    for command in commands(path):
        begun = time.monotonic()
        with tempfile.TemporaryFile("w+") as output:
            child = subprocess.Popen(
                ["bash", "-c", f"{_SHIMS}{command.text}"],
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            said = " | ".join(output.read().splitlines()[-8:])
        # of the largest of its processes; a child begins with the peak of this one, which then says nothing
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = used.ru_maxrss / 2**20 if used.ru_maxrss > own else 0.0
        print(
            f"{path}:{command.line}: {command.text} -> {child.returncode} "
            f"({time.monotonic() - begun:.1f} s, {peak:.2f} GiB)",
            flush=True,
        )
        if child.returncode != command.status:
            wrong.append(f"{path}:{command.line}: `{command.text}` ended with {child.returncode}: {said}")
        if peak > MOST_MEMORY:
            wrong.append(f"{path}:{command.line}: `{command.text}` took {peak:.2f} GiB, at most {MOST_MEMORY}")
    return wrong


def run_alone(path: Path) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="semnr-commands-") as folder:
        return run(path, Path(folder))


def main(paths: list[str]) -> int:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [line for lines in pool.map(run_alone, map(Path, paths)) for line in lines]
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
