"""docs/commands.md has every command and option of the programs, and no others."""

import re
import unittest

from commandlines import commands, options, run
from documents import section
from harness import REPOSITORY

PAGE = "commands.md"
# Every command has these; the page lists them once for each program.
COMMON = {"--version", "--help", "-h"}


def heading(program, path):
    return " ".join(("###" if path else "##", program, *path))


def own_part(program, path):
    """A command's section without those of other commands."""
    first, *_ = re.split(r"(?m)^### ", section(PAGE, heading(program, path)).split("\n", 1)[1])
    return first


def cells(program, path):
    """The first cells of the tables of a command."""
    return re.findall(r"(?m)^\| (`.*?) \|", own_part(program, path).replace(r"\|", "/"))


def arguments(program, *path):
    """The arguments of a command, in capitals, as its usage has them."""
    usage = re.search(r"(?ms)^USAGE: (.*?)\n\n", run(program, *path, "--help"))[1]
    words = re.sub(r"\[--.*?\](?= |$)", "", " ".join(usage.split())).split()[1 + len(path):]
    return {word.strip("[]<>").upper() for word in words} - {"SUBCOMMAND"}


class CommandsPage(unittest.TestCase):
    def test_commands(self):
        text = (REPOSITORY / "docs" / PAGE).read_text()
        headings = re.findall(r"(?m)^##+ (diglett.*)$", text)
        self.assertEqual(sorted(headings), sorted(" ".join((program, *path)) for program, path in commands()))

    def test_options(self):
        for program, path in commands():
            with self.subTest(command=[program, *path]):
                words = " ".join(cells(program, path))
                documented = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", words))
                self.assertEqual(documented, options(program, *path) - (COMMON if path else set()))

    def test_short_and_long_names_are_in_one_row(self):
        for program, path in commands():
            for line in run(program, *path, "--help").splitlines():
                both = re.match(r"  (-\w), (--[\w-]+)", line)
                if both and (not path or both[2] not in COMMON):
                    with self.subTest(command=[program, *path], option=both[2]):
                        self.assertTrue([cell for cell in cells(program, path)
                                         if cell.startswith(f"`{both[1]}`, `{both[2]}")])

    def test_arguments(self):
        for program, path in commands():
            if path:
                with self.subTest(command=[program, *path]):
                    documented = {cell.strip("`") for cell in cells(program, path) if re.match(r"`[A-Z]+`$", cell)}
                    self.assertEqual(documented, arguments(program, *path))

    def test_exit_codes(self):
        """Those that the help of a command names."""
        for program, path in commands():
            text = re.search(r"(?ms)^Exit codes: (.*?)\.\n", run(program, *path, "--help"))
            if path and text:
                with self.subTest(command=[program, *path]):
                    self.assertIn(" ".join(text[0].split()), " ".join(own_part(program, path).split()))
