"""Golden files: texts that users see, so that a change of a word is a visible change of a file.

`DIGLETT_GOLDEN=write` writes them again; read the difference before you commit it."""

import difflib
import os
import re

from harness import REPOSITORY

DIRECTORY = REPOSITORY / "Tests" / "EndToEnd" / "golden"


def normalized(text, *pairs):
    """Replaces what differs from run to run: times, pins, secrets, and each pair of text and placeholder."""
    for old, new in pairs:
        text = text.replace(str(old), new)
    for pattern, new in (
            (r"\x1b\[[0-9;]*m", ""),
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
            (r"sha256/[A-Za-z0-9+/]{43}=", "sha256/PIN"),
            (r"dgl(1?)_(\w+)_[A-Za-z0-9_-]{43}", r"dgl\1_\2_SECRET"),
            (r"instance-[0-9a-f]{32}", "instance-ID"),
            (r"retrying in [0-9.]+ s", "retrying in N s"),
            (r"process \d+", "process N"),
    ):
        text = re.sub(pattern, new, text)
    return text


def check(test, name, text):
    """Compares a text with a golden file."""
    path = DIRECTORY / name
    if os.environ.get("DIGLETT_GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return
    expected = path.read_text() if path.exists() else ""
    if text != expected:
        difference = difflib.unified_diff(
            expected.splitlines(), text.splitlines(), str(path.relative_to(REPOSITORY)), "now", lineterm="", n=2)
        test.fail("the text differs from the golden file; if that is wanted, run this test with "
                  "DIGLETT_GOLDEN=write\n" + "\n".join(difference))
