"""Hooks of mkdocs: pages made from the code, documents at the top, and a check of the site."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import reference
import results
from documents import ROOT, TOP, described_above, notebook_pages, site_links
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from trimtab.commands.registry import names


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put a page for each command into the navigation."""
    pages = [{name: reference.command_page(name)} for name in names()]
    config.nav = _with_commands(config.nav, pages)
    return config


def _with_commands(nav: Any, pages: list[dict[str, str]]) -> Any:
    if isinstance(nav, list):
        return [_with_commands(entry, pages) for entry in nav]
    if isinstance(nav, dict):
        return {
            key: [*value, *pages] if key == "Commands" else _with_commands(value, pages)
            for key, value in nav.items()
        }
    return nav


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the documents at the top of the repository."""
    for page, text in (reference.pages() | results.pages() | notebook_pages()).items():
        files.append(File.generated(config, page, content=text))
    for source, page in TOP.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        text = described_above(_PICTURE.sub(_of_both_schemes, site_links(text, source, page)))
        files.append(File.generated(config, page, content=text))
    return files


#: A picture that GitHub shows by the system's scheme; the site has a switch as well.
_PICTURE = re.compile(
    r'<picture>\s*<source[^>]*srcset="([^"]+)">\s*(<img [^>]*)src="([^"]+)"(.*?)</picture>',
    re.DOTALL,
)


def _of_both_schemes(match: re.Match[str]) -> str:
    dark, before, light, after = match.groups()
    urls = (f"{light}#only-light", f"{dark}#only-dark")
    return "".join(f'{before}src="{url}"{after}' for url in urls)


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Let links of documents lead to the pages of the site."""
    uri = page.file.src_uri
    if page.file.generated_by:
        return markdown
    return described_above(site_links(markdown, f"docs/{uri}", uri))


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Mark options and short words of code, which no line may break."""
    html = _SHORT_CODE.sub(r'<code class="word">', html)
    return _OPTION.sub(r'<span class="word">\1</span>', html)


#: An option, a name or a path of a few letters, outside of blocks.
_SHORT_CODE = re.compile(r"<code>(?=[^<\n]{1,24}</code>)")
#: An option in a block of commands.
_OPTION = re.compile(r"(?<=[ >])(--[a-z][\w-]*)(?=[ =<\n])(?=(?:(?!<pre>).)*</pre>)", re.DOTALL)


def on_post_build(*, config: MkDocsConfig) -> None:
    """Refuse a site that loads something from the internet, or whose links lead nowhere.

    Raises:
        PluginError: it has such a page.
    """
    site = Path(config.site_dir)
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    faults = [
        f"{path.relative_to(site)}: {fault}"
        for path, page in pages.items()
        for fault in _faults(site, path, page, pages)
    ]
    if faults:
        raise PluginError("\n".join(["The site has faults:", *sorted(set(faults))]))


def _faults(site: Path, path: Path, page: _Page, pages: dict[Path, _Page]) -> list[str]:
    loaded = [f"loads {url}" for url in page.loaded if re.match(r"(https?:)?//", url)]
    broken = []
    for url in [*page.links, *page.loaded]:
        parts = urlsplit(url)
        if parts.scheme or parts.netloc or path.name == "404.html":
            continue
        target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
        target = target / "index.html" if target.is_dir() else target
        if not target.exists() or not target.is_relative_to(site.resolve()):
            broken.append(f"{url} does not exist")
        elif (
            parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids
        ):
            broken.append(f"{url} has no such part")
    return loaded + broken


class _Page(HTMLParser):
    """Links, names of parts and loaded files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = {"", "__skip"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag leads to, loads or is named."""
        found = {key: value or "" for key, value in attrs}
        self.ids.add(found.get("id", ""))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") in {"stylesheet", "icon", "preload"}:
            self.loaded.append(found["href"])
        if tag in {"script", "img", "source", "iframe"}:
            self.loaded += [found[k].partition(" ")[0] for k in ("src", "srcset") if k in found]
