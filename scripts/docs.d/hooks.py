"""What mkdocs does otherwise here.

Pages are parsed as GitHub parses them, by a CommonMark parser instead of Python-Markdown's, so that a page reads the
same in both places. Links between README.md, docs/ and the rest of the repository work on the site too. Warnings end
a strict build.
"""

import logging
import posixpath
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as etree

from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from markdown.util import Registry
from markdown_it import MarkdownIt
from mkdocs.structure.files import File
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_by_name
from pygments.util import ClassNotFound

log = logging.getLogger("mkdocs.hooks")
root = Path(__file__).resolve().parents[2]

# README.md of the repository is this page. "README.md" itself would be the home page.
readme = "readme.md"

# GitHub's alerts, and the admonitions of the theme that look most like them.
alerts = {"NOTE": "note", "TIP": "tip", "IMPORTANT": "important", "WARNING": "warning", "CAUTION": "danger"}

void = {"area", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


# Markdown to an element tree


def code(text: str, language: str) -> str:
    try:
        lexer = get_lexer_by_name(language, stripnl=False) if language else TextLexer(stripnl=False)
    except ClassNotFound:
        lexer = TextLexer(stripnl=False)
    return highlight(text, lexer, HtmlFormatter(cssclass="highlight", wrapcode=True))


def fence(self, tokens, index, options, env) -> str:
    return code(tokens[index].content, tokens[index].info.strip().split(" ")[0])


commonmark = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
commonmark.add_render_rule("fence", fence)
commonmark.add_render_rule("code_block", fence)


class TreeParser(HTMLParser):
    """HTML as an element tree, without comments."""

    def __init__(self) -> None:
        super().__init__()
        self.builder = etree.TreeBuilder()
        self.builder.start("div", {})
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        if tag in void:
            self.builder.end(tag)
        else:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in void:
            self.handle_endtag(tag)

    def handle_endtag(self, tag) -> None:
        if tag in self.open:
            while (last := self.open.pop()) != tag:
                self.builder.end(last)
            self.builder.end(tag)

    def handle_data(self, data) -> None:
        self.builder.data(data)

    def tree(self, html: str) -> etree.Element:
        self.feed(html)
        self.close()
        while self.open:
            self.builder.end(self.open.pop())
        self.builder.end("div")
        return self.builder.close()


class Parser:
    def parseDocument(self, lines: list[str]) -> etree.ElementTree:
        tree = TreeParser().tree(commonmark.render("\n".join(lines)))
        for element in list(tree.iter()):
            if element.tag == "blockquote":
                admonition(element)
            elif element.tag == "picture":
                follow_theme(element)
            elif element.tag == "a" and not element.get("href"):
                element.tag = "span"  # mkdocs fails at an anchor that is not a link.
        return etree.ElementTree(tree)


def admonition(quote: etree.Element) -> None:
    """> [!NOTE] as GitHub shows it."""
    first = quote.find("p")
    match = re.match(r"\[!(\w+)\]\s*", first.text or "") if first is not None else None
    if not match or match[1] not in alerts:
        return
    quote.tag = "div"
    quote.set("class", f"admonition {alerts[match[1]]}")
    first.text = first.text[match.end() :]
    title = etree.Element("p", {"class": "admonition-title"})
    title.text = match[1].capitalize()
    quote.insert(0, title)


def follow_theme(picture: etree.Element) -> None:
    """A picture with a dark version: two images, of which the theme shows one."""
    dark = picture.find("source[@media='(prefers-color-scheme: dark)']")
    light = picture.find("img")
    if dark is None or light is None:
        return
    second = etree.Element("img", {**light.attrib, "src": dark.get("srcset", "") + "#only-dark"})
    light.set("src", light.get("src", "") + "#only-light")
    picture.tag = "span"
    picture[:] = [light, second]
    light.tail = second.tail = None


class Slugs:
    """The anchors of one page, as GitHub makes them."""

    def __init__(self) -> None:
        self.used: dict[str, int] = {}

    def __call__(self, text: str, separator: str) -> str:
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        count = self.used.get(slug, 0)
        self.used[slug] = count + 1
        return f"{slug}-{count}" if count else slug


class Links(Treeprocessor):
    """Turns links between files of the repository into those that mkdocs knows, between pages."""

    def __init__(self, page, files, repository: str) -> None:
        super().__init__()
        self.page, self.files, self.repository = page, files, repository

    def run(self, tree: etree.Element) -> None:
        for element in tree.iter():
            key = {"a": "href", "img": "src"}.get(element.tag)
            link = urlsplit(element.get(key, "")) if key else None
            if not link or link.scheme or link.netloc or not link.path or link.path.startswith("/"):
                continue
            page = self.page.file.src_uri
            source = "README.md" if page == readme else f"docs/{page}"
            path = posixpath.normpath(posixpath.join(posixpath.dirname(source), unquote(link.path)))
            target = readme if path == "README.md" else path.removeprefix("docs/") if path.startswith("docs/") else None
            anchor = f"#{link.fragment}" if link.fragment else ""
            if target and self.files.get_file_from_path(target):
                element.set(key, posixpath.relpath(target, posixpath.dirname(page) or ".") + anchor)
            elif path.startswith("..") or not (root / path).exists():
                log.warning("%s: the link '%s' leads to no file of the repository", source, element.get(key))
                element.set(key, "#")
            elif element.tag == "img":
                log.warning("%s: the picture '%s' must be in docs/", source, element.get(key))
            elif self.repository:
                kind = "tree" if (root / path).is_dir() else "blob"
                element.set(key, f"{self.repository.rstrip('/')}/{kind}/main/{path}{anchor}")
            else:
                element.tag = "span"
                element.attrib = {"title": path}


class GitHub(Extension):
    """Python-Markdown with GitHub's parser. Only the tables of contents remain of its own parts."""

    page = files = None
    repository = ""

    def extendMarkdown(self, md) -> None:
        md.preprocessors = Registry()
        md.postprocessors = Registry()
        md.parser = Parser()
        for name in ("inline", "prettify", "unescape"):
            md.treeprocessors.deregister(name, strict=False)
        # Before mkdocs, which has 0.
        md.treeprocessors.register(Links(self.page, self.files, self.repository), "links", 1)


# The build

github = GitHub()


def on_startup(command, dirty):
    if command == "build":
        logging.getLogger("mkdocs").setLevel(logging.WARNING)


def on_config(config):
    github.repository = config.extra.get("repository") or ""
    config.markdown_extensions.append(github)
    return config


def on_files(files, config):
    files.append(File.generated(config, readme, abs_src_path=str(root / "README.md")))
    return files


def on_page_markdown(markdown, page, config, files):
    github.page, github.files = page, files
    config.mdx_configs.setdefault("toc", {})["slugify"] = Slugs()
    return markdown


class Resources(HTMLParser):
    """What a browser loads with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        self.found += [values[name] for name in ("src", "data", "poster") if values.get(name)]
        self.found += [part.split()[0] for part in (values.get("srcset") or "").split(",") if part.strip()]
        if tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(values.get("href") or "")
        if tag == "use":
            self.found.append(values.get("href") or "")


def on_post_build(config):
    """Checks that the site loads nothing from other sites, and that its files are there."""
    site = Path(config.site_dir)
    for file in [*site.rglob("*.html"), *site.rglob("*.css"), *site.rglob("*.svg")]:
        text = file.read_text(encoding="utf-8")
        found = re.findall(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)", text) if file.suffix != ".html" else []
        links = [first or second for first, second in found]
        if file.suffix != ".css":
            parser = Resources()
            parser.feed(text)
            links += parser.found
        for link in links:
            parts = urlsplit(link.strip())
            if parts.scheme == "data" or not (parts.path or parts.netloc):
                continue
            if parts.scheme or parts.netloc:
                log.warning("%s loads %s from another site", file.relative_to(site), link)
            elif file.name != "404.html" and not (file.parent / unquote(parts.path)).exists():
                log.warning("%s loads %s, which does not exist", file.relative_to(site), link)
