"""The report as one HTML page: formulas in MathML, plots in SVG, nothing fetched."""

import io
from html import escape
from math import prod

import matplotlib
from latex2mathml.converter import convert
from matplotlib.figure import Figure

from jaxconv.identities.report import Report, Verdict, bound_of, number

STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
td, th { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line); }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.fails { font-weight: bold; color: #d55e00; } .small { font-size: .85rem; opacity: .8; }
figure { margin: 1rem 0; background: #fff; border-radius: .5rem; padding: .5rem; }
figure svg { max-width: 100%; height: auto; }
"""
COLOURS = {"float32": "#0072b2", "float64": "#009e73", "complex64": "#d55e00", "int32": "#cc79a7"}  # Okabe and Ito
FLOOR = 1e-2  # where an error of 0 is drawn, in ulps


def page(report: Report) -> str:
    """The whole page."""
    themes: dict[str, list[Verdict]] = {}
    for v in report.verdicts:
        themes.setdefault(v.identity.theme, []).append(v)
    rows = "".join(f"<tr><th>{escape(n)}</th><td>{escape(t)}</td></tr>" for n, t in report.environment.items())
    failed = "".join(f"<li class=fails>{escape(line)}</li>" for line in report.diagnoses)
    parts = "".join(_theme(name, verdicts) for name, verdicts in themes.items())
    verdict = escape(report.verdict)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>jaxconv verify: {verdict}</title>"
        f"<style>{STYLE}</style><h1>Identities of convolution and correlation: {verdict}</h1>"
        f"<p>{escape(report.summary)}</p><table>{rows}</table><ul>{failed}</ul>"
        "<p>Errors and bounds are in units in the last place of the largest element of a result; those shown are of "
        "the comparison that came closest to its bound. A bound of 0 is written <i>exact</i>. * is convolution, ⋆ "
        f"correlation, ⊛ circular convolution.</p>{parts}</html>"
    )


def _theme(name: str, verdicts: list[Verdict]) -> str:
    head = "<tr><th>identity<th>statement<th>domain<th>comparisons<th>worst error<th>bound<th>verdict</tr>"
    return (
        f"<h2>{escape(name)}</h2><table>{head}{''.join(map(_row, verdicts))}</table><figure>{_plot(verdicts)}</figure>"
    )


def _row(v: Verdict) -> str:
    i = v.identity
    error, bound = ("", "") if v.worst is None else (number(v.worst.error), bound_of(v.worst))
    beside = f"<br><span class=small>not: {escape(i.witness.statement)}</span>" if i.witness else ""
    state = " class=fails" if v.fails else ""
    return (
        f"<tr><td>{escape(i.name)}<br><span class=small>{escape(i.source)}</span>"
        f"<td>{convert(i.latex)}<br><span class=small>{escape(i.statement)}</span>{beside}"
        f"<td>{escape(str(i.domain))}<td class=number>{v.comparisons}<td class=number>{error}<td class=number>{bound}"
        f"<td{state}>{escape(v.verdict)}</tr>"
    )


def _plot(verdicts: list[Verdict]) -> str:
    """Error and bound against the number of elements, for every dtype of a theme."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    cells = [f for v in verdicts for f in v.cells.values()]
    for dtype in dict.fromkeys(f.dtype for f in cells):
        found = [f for f in cells if f.dtype == dtype]
        sizes = [max(map(prod, f.arrays)) for f in found]
        colour = COLOURS.get(dtype, "#555555")
        errors = [min(max(f.error, FLOOR), 1e9) for f in found]
        axes.plot(sizes, errors, "o", ms=4, alpha=0.6, color=colour, label=f"{dtype}, error")
        bounded = [(n, f.bound) for n, f in zip(sizes, found, strict=True) if f.bound]
        if bounded:
            axes.plot(*zip(*bounded, strict=True), "_", ms=8, alpha=0.6, color=colour, label=f"{dtype}, bound")
    axes.set(xscale="log", yscale="log", xlabel="elements of the largest argument", ylabel=f"ulp ({FLOOR:g}: none)")
    if cells:
        axes.legend(fontsize=8, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jaxconv"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
