"""Examples from the documents, for tests that run them verbatim."""

import re

from harness import REPOSITORY


def section(page, heading):
    """The text of a section of docs/PAGE, with its subsections; `heading` includes the number signs."""
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
    """The fenced blocks of a text in this language, without their fences; "" selects blocks without a language."""
    # Match all blocks in order: otherwise the end of a block would match as the start of one without a language.
    found = re.findall(r"^```([a-z]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [content for known, content in found if known == language]


STEP = re.compile(r"^<!-- (run|fails|start|file|prints): (\S+) -->\n```[a-z]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def steps(text):
    """The blocks to execute, in their order, as (kind, subject, content).

    Each follows a comment: `run: MACHINE` commands that end, `fails: MACHINE` commands that fail, `start: MACHINE` a
    program that goes on, `prints: MACHINE` what the commands before it show, with ... for any characters, and
    `file: PATH` a file.
    """
    return STEP.findall(text)


def substitute(text, *pairs):
    """Replaces addresses and paths of the document by those of the test. Each of them must occur."""
    for old, new in pairs:
        if old not in text:
            raise AssertionError(f"the document no longer has {old!r}")
        text = text.replace(old, str(new))
    return text


UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(duration):
    """The seconds of a duration in a proxy's configuration, such as `1h`, `60s` or `5000ms`."""
    number, unit = re.fullmatch(r"(\d+)(ms|[smhd]?)", duration).groups()
    return int(number) * UNITS[unit]
