"""The docstrings of this package, turned into what griffe's numpy parser and Markdown read.

The package writes an example where it is spoken of, as in a terminal; it ends a section with a blank line and goes
on at the margin ("Source: ..."); and the types of its parameters are words for the reader.
"""

import re

import griffe

NAMES = r"\*{0,2}\w+(?:, \*{0,2}\w+)*"
TITLE = re.compile(r"-+")
ITEMISED = ("Parameters", "Other Parameters", "Returns", "Yields", "Raises", "Warns")
ITEM = re.compile(rf"({NAMES})(?: : (.*))?")  # of a section
FIELD = re.compile(rf"{NAMES}: ")  # of a list in running text
SOLID = "\u2060"  # no width, and no Python: griffe would take "'full' | 'same'" for types, and show no quotes


class Forms(griffe.Extension):
    """Rewrites each docstring when griffe has read it."""

    def on_object(self, *, obj, **_):
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text: str) -> str:
    """The docstring with its examples fenced, its lists itemised, and its sections ended where they end."""
    found, section = [], None
    for lines in (paragraph.split("\n") for paragraph in re.split(r"\n\s*\n", text)):
        if len(lines) > 1 and TITLE.fullmatch(lines[1]):
            section = lines[0] if lines[0] in ITEMISED else None
        elif section and not lines[0].startswith(" ") and not ITEM.fullmatch(lines[0]):
            section = None
            found.append("Notes\n-----")
        if section == "Parameters":
            lines = _parameters(lines)
        elif not section and sum(1 for line in lines if FIELD.match(line)) > 1:
            lines = [f"- {line}" if FIELD.match(line) else line for line in lines]
        found.append("\n".join(_fenced(lines)))
    return "\n\n".join(found)


def _fenced(lines: list[str]) -> list[str]:
    """The lines with an example in them, if there is one, as a block of code."""
    start = next((i for i, line in enumerate(lines) if line.lstrip().startswith(">>>")), None)
    if start is None:
        return lines
    indent = lines[start][: lines[start].index(">>>")]
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith(indent)), len(lines))
    return [*lines[:start], "", f"{indent}```pycon", *lines[start:end], f"{indent}```", *lines[end:]]


def _parameters(lines: list[str]) -> list[str]:
    """The lines with types as plain words, and names that share a text but no type each with the text."""
    found = []
    starts = [0, *(i for i in range(1, len(lines)) if ITEM.fullmatch(lines[i]))]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        heads = [lines[start]]
        if item := ITEM.fullmatch(lines[start]):
            names, words = item.groups()
            heads = names.split(", ") if words is None else [f"{names} : {SOLID}{words.replace('`', '')}"]
        found += [line for head in heads for line in (head, *lines[start + 1 : end])]
    return found
