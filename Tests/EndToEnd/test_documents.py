"""The documents as a whole: links, the index, and the site that scripts/docs builds."""

import re
import subprocess
import unittest
from urllib.parse import unquote, urlsplit

from harness import REPOSITORY

PAGES = sorted([REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *(REPOSITORY / "docs").rglob("*.md")])


def without_code(text):
    """The text without fenced and indented blocks and code spans."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda span: span.group().replace("[", " ").replace("#", " ").strip("`"), text)


def anchors(page):
    """The anchors of a page, as GitHub makes them from headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = {}
    for heading in re.findall(r"^#+ +(.*)$", text, flags=re.MULTILINE):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        count = found.get(slug)
        found[slug] = 0 if count is None else count + 1
        if count is not None:
            found[f"{slug}-{count + 1}"] = 0
    return set(found)


def links(page):
    text = without_code(page.read_text())
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)


class Links(unittest.TestCase):
    def test_relative_links(self):
        """Each leads to a file of the repository, and to a heading that exists."""
        for page in PAGES:
            for link in links(page):
                parts = urlsplit(link)
                if parts.scheme:
                    continue
                with self.subTest(page=page.relative_to(REPOSITORY).as_posix(), link=link):
                    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
                    self.assertTrue(target.exists(), "no such file")
                    if parts.fragment and target.suffix == ".md":
                        self.assertIn(parts.fragment, anchors(target), "no such heading")

    def test_the_index_has_every_page(self):
        index = {(REPOSITORY / "docs" / urlsplit(link).path).resolve() for link in links(REPOSITORY / "docs/index.md")}
        for page in PAGES:
            if page.parent.name == "decisions" and page.name != "README.md":
                continue
            if page.name not in ("index.md", "CHANGELOG.md"):
                with self.subTest(page=page.name):
                    self.assertIn(page, index)


class Site(unittest.TestCase):
    def test_it_builds_without_a_broken_link(self):
        """Installs mkdocs from PyPI if it is not there yet."""
        result = subprocess.run(
            [REPOSITORY / "scripts/docs", "--check"], cwd=REPOSITORY, capture_output=True, text=True, timeout=300,
            check=False)
        if "only this step needs the network" in result.stderr:
            self.skipTest("PyPI cannot be reached")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
