"""The examples of the documents, for tests that run them as they are written."""

import re

from harness import REPOSITORY


def section(page, heading):
    """The text of a section of docs/PAGE, with the sections inside it; `heading` has its number signs."""
    lines = (REPOSITORY / "docs" / page).read_text().splitlines(keepends=True)
    start = lines.index(f"{heading}\n")
    level = len(heading) - len(heading.lstrip("#"))
    is_code = False
    for end, line in enumerate(lines[start + 1:], start + 1):
        is_code ^= line.startswith("```")
        if not is_code and re.match(rf"#{{1,{level}}} ", line):
            return "".join(lines[start:end])
    return "".join(lines[start:])


def blocks(text, language):
    """The fenced blocks of a text in this language, without their fences; "" for those without a language."""
    # In their order, or the end of one block would be taken for the beginning of one without a language.
    found = re.findall(r"^```([a-z]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [content for known, content in found if known == language]


def substitute(text, *pairs):
    """Puts addresses and paths of the test in place of the document's. Each must be there."""
    for old, new in pairs:
        if old not in text:
            raise AssertionError(f"the document no longer has {old!r}")
        text = text.replace(old, str(new))
    return text


UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(duration):
    """What `1h`, `60s` or `5000ms` of a proxy's configuration is in seconds."""
    number, unit = re.fullmatch(r"(\d+)(ms|[smhd]?)", duration).groups()
    return int(number) * UNITS[unit]
