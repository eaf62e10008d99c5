"""JSON logs, and the requirements on each of their lines."""

import json
import re

from harness import REPOSITORY, EndToEndTest

JSON = ("--log-format", "json")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ADDRESS = re.compile(r"127\.0\.0\.1:\d+")
LEVELS = {"trace", "debug", "info", "warning", "error"}
REQUEST = b"GET / HTTP/1.0\r\nHost: example\r\n\r\n"


def documented_fields():
    """The log fields in docs/monitoring.md, with the types of their values."""
    text = (REPOSITORY / "docs" / "monitoring.md").read_text()
    rows = re.search(r"<!-- fields -->\n((?:\|.*\n)+)", text).group(1)
    found = re.findall(r"(?m)^\| (`.*?`) \| (text|number) \|", rows)
    return {name: {"text": str, "number": (int, float)}[kind]
            for names, kind in found for name in re.findall(r"`([^`]+)`", names)}


def address_of(connection):
    return "{}:{}".format(*connection.getsockname()[:2])


class LogTest(EndToEndTest):
    FIELDS = documented_fields()

    def parse(self, line):
        """Parses a line, which must have the required fields, and otherwise only documented ones."""
        try:
            entry = json.loads(line, object_pairs_hook=self.object_of)
        except ValueError:
            self.fail(f"no JSON: {line!r}")
        self.assertLessEqual({"time", "level", "message"}, entry.keys(), line)
        self.assertRegex(entry["time"], TIME)
        self.assertIn(entry["level"], LEVELS)
        for name, value in entry.items():
            self.assertIn(name, self.FIELDS, line)
            self.assertIsInstance(value, self.FIELDS[name], line)
            self.assertNotIsInstance(value, bool, line)
        self.assertLess(len(line.encode()), 4096)
        return entry

    def object_of(self, pairs):
        names = [name for name, _ in pairs]
        self.assertEqual(len(names), len(set(names)), f"a name twice: {names}")
        return dict(pairs)

    def entries(self, program, **wanted):
        """All log lines so far with these values."""
        entries = [self.parse(line) for line in list(program.stderr)]
        return [entry for entry in entries if wanted.items() <= entry.items()]

    def wait_entry(self, program, **wanted):
        """Waits for a line with these values; a value can be a pattern to search for."""
        def match(line):
            entry = self.parse(line)
            for name, value in wanted.items():
                given = entry.get(name)
                if not (value.search(str(given)) if hasattr(value, "search") else value == given):
                    return None
            return entry

        return program.wait_line(program.stderr, match, f"a line of the log with {wanted}")
