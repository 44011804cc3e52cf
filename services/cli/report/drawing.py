"""Plots as SVG to stand inside a page: text stays text, black takes the page's colour."""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# A colour that nothing else has, which the page's own replaces.
INK = "#010203"
ACCENT = "#d1495b"
SECOND = "#2e86ab"
OTHERS = ("#66a182", "#edae49", "#8d6cab", "#7a8b99", "#b07d62", "#5fa8d3", "#a5a58d", "#c9ada7")
_WIDTH = 6.4
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
}


def draw(name: str, height: float, paint: Callable[[Figure], None]) -> str:
    """An SVG element of what `paint` draws; `name` keeps its ids apart from those of other plots."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        paint(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # The page scales it to its width.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    # Ids that nothing refers to, "text_3" for example, would occur in every plot.
    referred = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in referred else "", svg)
    return svg.replace(INK, "currentColor")
