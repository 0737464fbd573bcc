"""The README is the home page, and links to the package's source lead to its reference."""

import os
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\[([^][]*)\]\(([\w./-]+)(#[\w.-]*)?\)")


def on_files(files, config):
    """Add the README to the pages."""
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn the links to files of the repository; of those that lead nowhere MkDocs complains."""
    return LINK.sub(lambda link: _turned(link, page.file.src_uri, Path(config.docs_dir)), markdown)


def _turned(link: re.Match, page: str, pages: Path) -> str:
    text, target, anchor = link.groups()
    readme = ROOT / "README.md"
    path = ((readme if page == "index.md" else pages / page).parent / target).resolve()
    if not path.is_file():
        return link[0]
    if path == readme or path.is_relative_to(pages):
        to = "index.md" if path == readme else path.relative_to(pages)
        return f"[{text}]({os.path.relpath(to, os.path.dirname(page) or '.')}{anchor or ''})"
    name = path.relative_to(ROOT)
    if name.parts[0] == "jaxconv" and name.suffix == ".py":
        return f"[{text}][{'.'.join(name.with_suffix('').parts).removesuffix('.__init__')}]"
    return text
