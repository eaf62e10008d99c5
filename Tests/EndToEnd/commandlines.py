"""Subcommands and options of the programs, parsed from `--help`."""

import re
import subprocess

from harness import program_path

PROGRAMS = ("diglett", "diglett-server")


def run(program, *arguments, stdin=None):
    """Runs a program, which must succeed; returns its standard output."""
    return subprocess.run([program_path(program), *arguments], input=stdin, capture_output=True, text=True,
                          check=True).stdout


def options(program, *path):
    """The short and long options of a subcommand, without values: {'-d', '--debug', ...}."""
    text = run(program, *path, "--help")
    found = set()
    for line in text.splitlines():
        names = re.match(r"  ((?:-\w, )?--[\w-]+|-\w)\b", line)
        if names:
            found |= set(names[1].split(", "))
    return found


def subcommands(program, *path):
    """All subcommands, recursively, as paths: [('agent',), ('agent', 'add'), ...]."""
    _, _, text = run(program, *path, "--help").partition("SUBCOMMANDS:\n")
    paths = []
    for name in re.findall(r"^  ([a-z][\w-]*) ", text, re.MULTILINE):
        paths += [(*path, name), *subcommands(program, *path, name)]
    return paths


def commands():
    """Each program alone and with each subcommand: [('diglett', ()), ('diglett', ('key',)), ...]."""
    return [(program, path) for program in PROGRAMS for path in [(), *subcommands(program)]]
