"""What the programs say about their own command lines: subcommands and options, as `--help` shows them."""

import re
import subprocess

from harness import program_path

PROGRAMS = ("diglett", "diglett-server")


def run(program, *arguments, stdin=None):
    """What a program writes to standard output; it must end well."""
    return subprocess.run([program_path(program), *arguments], input=stdin, capture_output=True, text=True,
                          check=True).stdout


def options(program, *path):
    """The options of a subcommand, short and long, without their dashes' values: {'-d', '--debug', ...}."""
    text = run(program, *path, "--help")
    found = set()
    for line in text.splitlines():
        names = re.match(r"  ((?:-\w, )?--[\w-]+|-\w)\b", line)
        if names:
            found |= set(names[1].split(", "))
    return found


def subcommands(program, *path):
    """All subcommands below one, as paths: [('agent',), ('agent', 'add'), ...]."""
    _, _, text = run(program, *path, "--help").partition("SUBCOMMANDS:\n")
    paths = []
    for name in re.findall(r"^  ([a-z][\w-]*) ", text, re.MULTILINE):
        paths += [(*path, name), *subcommands(program, *path, name)]
    return paths


def commands():
    """Every program with each of its subcommands and with none: [('diglett', ()), ('diglett', ('key',)), ...]."""
    return [(program, path) for program in PROGRAMS for path in [(), *subcommands(program)]]
