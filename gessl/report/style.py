"""How figures look and how they become files: same input, same bytes.

On the page they are SVG, and colours follow its theme. In print they are PDF, as wide as a paper's text and in a
font that goes with Times.
"""

import io
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from gessl.records.facts import SHORT
from gessl.report.plan import ReportPlan

PAGE = "sigma-report.html"
PAPER, INK, MUTED, RULE = "#fdfdfc", "#1b1f23", "#667079", "#d3d7db"
TREATMENTS = ("#0b6a94", "#7b4ba0", "#24785a")
CONTROLS = ("#7d8790", "#bf7f14", "#a5533b", "#5f7a2f")
MARKERS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚"}  # Matplotlib's code, and the sign in text
# The page defines these properties for light and dark; a file of its own keeps the plain colours.
THEME = {PAPER: "paper", INK: "ink", MUTED: "muted", RULE: "rule"}
THEME |= {colour: f"t{i}" for i, colour in enumerate(TREATMENTS)} | {c: f"c{i}" for i, c in enumerate(CONTROLS)}

FEW = 100  # runs: of more, marks and curves are drawn together, and lead nowhere; the tables still do
PRINTED = 6.75  # inches: both columns of ICML's template; NeurIPS and ICLR have 5.5
_SCREEN: dict[Any, Any] = {
    "savefig.format": "svg", "svg.fonttype": "none", "svg.hashsalt": "gessl", "text.parse_math": False,
    "axes.unicode_minus": True, "font.family": ["DejaVu Sans"], "font.size": 8, "axes.titlesize": 8.5,
    "axes.titlelocation": "left", "axes.labelsize": 8, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5,
    "legend.fontsize": 8, "figure.facecolor": PAPER, "savefig.facecolor": PAPER, "axes.facecolor": "none",
    "text.color": INK, "axes.labelcolor": MUTED, "axes.titlecolor": INK, "xtick.color": RULE, "ytick.color": RULE,
    "xtick.labelcolor": MUTED, "ytick.labelcolor": INK, "axes.edgecolor": RULE, "axes.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": RULE,
    "grid.linewidth": 0.5, "axes.axisbelow": True, "legend.frameon": False, "lines.linewidth": 1.1,
    "figure.constrained_layout.use": True,
}  # fmt: skip
_PRINT: dict[Any, Any] = {
    "savefig.format": "pdf", "pdf.fonttype": 42, "font.family": ["STIXGeneral", "DejaVu Sans"], "font.size": 7,
    "axes.titlesize": 7, "axes.labelsize": 7, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5, "legend.fontsize": 7,
    "text.color": "black", "axes.labelcolor": "black", "axes.titlecolor": "black", "ytick.labelcolor": "black",
    "xtick.labelcolor": "black", "figure.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """A figure: file name without suffix, section of the page, caption, and the SVG or PDF file."""

    name: str
    section: str
    caption: str
    file: bytes

    @property
    def svg(self) -> str:
        """The file's text."""
        return self.file.decode()


def settings(printed: bool = False) -> AbstractContextManager[None]:
    """Matplotlib settings of all figures; `$` in a name is a character, not mathematics.

    Args:
        printed: for a paper, not for the page.
    """
    return mpl.rc_context(_SCREEN | _PRINT if printed else _SCREEN)


def crowded(plan: ReportPlan) -> bool:
    """Whether the runs are too many for a mark or line each that leads to its lineage."""
    return len(plan.runs) > FEW


def look(plan: ReportPlan) -> dict[str, tuple[str, str]]:
    """(colour, marker) of each variant: treatments in strong colours, controls in quiet ones."""
    treatments = {comparison.treatment for comparison in plan.comparisons}
    looks: dict[str, tuple[str, str]] = {}
    used = {True: 0, False: 0}
    for place, variant in enumerate(plan.variants):
        strong = variant in treatments
        colours = TREATMENTS if strong else CONTROLS
        looks[variant] = colours[used[strong] % len(colours)], list(MARKERS)[place % len(MARKERS)]
        used[strong] += 1
    return looks


def legend(figure: Figure, looks: dict[str, tuple[str, str]]) -> None:
    """One legend of the variants above the figure."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=5, label=variant)
        for variant, (colour, marker) in looks.items()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 5))


def method_axis(axes: Axes, methods: tuple[str, ...], named: bool) -> None:
    """Methods as rows, the first on top."""
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_yticks(range(len(methods)), methods if named else [""] * len(methods))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    for edge in range(1, len(methods)):
        axes.axhline(edge - 0.5, color=RULE, linewidth=0.5)


def record_anchor(digits: str) -> str:
    """The id on the page of the record whose id is `digits`."""
    return f"r-{digits[:SHORT]}"


def link(anchor: str) -> str:
    """Where a mark of a figure leads: to the entry `anchor` of the page, from the figure's own file."""
    return f"../{PAGE}#{anchor}"


def canvas(width: float, height: float) -> Figure:
    """A figure of this size in inches on the page; in print as wide as a paper's text, at the same aspect ratio."""
    scale = PRINTED / width if _printed() else 1.0
    return Figure(figsize=(scale * width, scale * height))


def finish(figure: Figure) -> bytes:
    """The figure as a file, without date, program version or clashing element ids."""
    buffer = io.BytesIO()
    if _printed():
        # not `savefig`, which draws each figure twice
        FigureCanvasPdf(figure).print_pdf(buffer, metadata={"CreationDate": None, "Creator": None, "Producer": None})
        return buffer.getvalue()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return re.sub(r'<g id="[^"]*"', "<g", buffer.getvalue().decode()).replace(' target="_blank"', "").encode()


def _printed() -> bool:
    return bool(mpl.rcParams["savefig.format"] == "pdf")


def inline(svg: str, label: str) -> str:
    """The `<svg>` element for the page: themed colours, scalable, with a name for screen readers."""
    from xml.sax.saxutils import quoteattr

    element = svg[svg.index("<svg") :]
    for colour, name in THEME.items():
        element = element.replace(colour, f"var(--fig-{name})")
    element = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", element, count=1)
    element = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", element, count=1)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    # with the keyboard one steps from number to number; what those are made of is reached by way of them
    element = element.replace(f'<a xlink:href="../{PAGE}#c-', '<a aria-label="number" href="#c-')
    element = element.replace(f'<a xlink:href="../{PAGE}#', '<a aria-label="lineage" tabindex="-1" href="#')
    return element.replace("<svg", f'<svg role="group" aria-label={quoteattr(label)}', 1)
