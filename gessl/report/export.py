"""Tables as tidy CSV (one row per number) and as LaTeX (booktabs), and the ids of their cells."""

from typing import Any

import pandas as pd

from gessl.report.paper import BEST, SECOND, PaperCell, PaperTable
from gessl.report.seen import Seen
from gessl.report.tables import PUBLISHED, Cell, Table, number
from gessl.report.verdict import DECIDED

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "±": r"$\pm$", "Δ": r"$\Delta$",
        "σ": r"$\sigma$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "†": r"\dag{}", "\n": " ", "\r": " ",
    }
)  # fmt: skip


def to_csv(table: Table) -> str:
    """One line per number; full precision, empty where there is none. Published numbers are of kind "quoted".

    `test_same` and `test_alike` count test images that encoders were trained on (`gessl.report.seen`).
    """
    head = {
        name: getattr(table, name) for name in ("dataset", "target", "protocol", "metric", "unit", "better", "split")
    }
    names = ("column", "kind", "mean", "lo", "hi", "over_seeds", "over_items", "n", "planned", "lost", "p",
             "min_p", "p_holm", "seconds", "images", "data_wait", "text", "id")  # fmt: skip
    quotes = [
        {**head, "task": row.task, "method": row.method, "column": PUBLISHED, "kind": "quoted", "mean": quote.value,
         "text": number(quote.value, table.unit), "source": f"{quote.origin}, {quote.address}"}
        for row in table.rows
        for quote in row.quotes
    ]  # fmt: skip
    lines = [
        {**head, "task": row.task, "method": row.method, **{name: getattr(cell, name) for name in names},
         "verdict": cell.verdict if cell.kind == "difference" else "", **_seen(table.seen)}
        for row in table.rows
        for cell in row.cells
    ]  # fmt: skip
    text: str = pd.DataFrame(lines + quotes).to_csv(index=False, lineterminator="\n")
    return text


def to_latex(table: Table) -> str:
    """A `tabular` for the booktabs package; a difference that is decided (`gessl.report.verdict`) is bold."""
    arrow = "↑" if table.better == "higher" else "↓"
    title = f"{table.data}, {table.protocol}, {table.metric} ({table.unit}) {arrow}"
    head = ["Task", "Method", *table.columns, *([PUBLISHED] if table.quotes else [])]
    lines = [
        f"% {' '.join(title.split())}",
        "% mean ± half-width of the 95 % interval over seeds (number of seeds)",
        *(f"% {note}" for note in (table.invalid, table.seen.sentence) if note),
        rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}",
        r"\toprule",
        rf"\multicolumn{{{len(head)}}}{{l}}{{{escape(title)}}} \\",
        r"\midrule",
        " & ".join(map(escape, head)) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = [escape(row.task), escape(row.method), *map(_latex_cell, row.cells)]
        if table.quotes:
            quotes = [f"{number(quote.value, table.unit)} ({quote.origin})" for quote in row.quotes]
            cells.append(escape("; ".join(quotes)) or "---")
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def ids(tables: list[Table]) -> dict[str, dict[str, Any]]:
    """Content of `ids.json`: what was displayed under each id, and the scores that it is made of."""
    return {
        cell.id: {"text": cell.text, "kind": cell.kind, "scores": list(cell.scores)}
        for table in tables
        for row in table.rows
        for cell in row.cells
        if cell.id
    }


def paper_csv(table: PaperTable) -> str:
    """One line per number of the table in the paper's layout; `source` is empty for ours."""
    lines = [
        {"row": row.label, "target": column.target, "protocol": column.protocol, "task": column.task,
         "metric": column.metric, "text": each.text, "mark": each.mark, "source": row.source,
         **({name: getattr(each.cell, name) for name in ("mean", "lo", "hi", "n", "id")} if each.cell else {}),
         **(_seen(seen) if each.cell else {})}
        for row in table.rows
        for column, seen, each in zip(table.columns, table.seen, row.cells, strict=True)
    ]  # fmt: skip
    text: str = pd.DataFrame(lines).to_csv(index=False, lineterminator="\n")
    return text


def paper_latex(table: PaperTable) -> str:
    """A `tabular` for the packages booktabs and xcolor: best bold, second underlined, published rows grey."""
    width = len(table.columns)
    spans, start = [], 2
    for _, size in table.groups:
        spans.append(rf"\cmidrule(lr){{{start}-{start + size - 1}}}")
        start += size
    arrows = {"higher": " ↑", "lower": " ↓", "": ""}
    heads = [
        column.heading + arrows[better] + (" †" if seen.sentence else "")
        for column, better, seen in zip(table.columns, table.better, table.seen, strict=True)
    ]
    lines = [
        f"% {' '.join(table.caption.split())}",
        "% bold: the best mean, and all whose 95 % intervals overlap its own; underlined: the next such group",
        "% grey: published by others, under the same protocol",
        *(f"% †: {note}" for note in table.notes),
        rf"\begin{{tabular}}{{l{'r' * width}}}",
        r"\toprule",
        "".join(rf" & \multicolumn{{{size}}}{{c}}{{{escape(name)}}}" for name, size in table.groups) + r" \\",
        " ".join(spans),
        " & ".join(["Method", *map(escape, heads)]) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = [escape(f"{row.label} [{row.source}]" if row.source else row.label)]
        cells += [_paper_cell(each) for each in row.cells]
        lines.append(" & ".join(rf"\textcolor{{gray}}{{{cell}}}" if row.source else cell for cell in cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _paper_cell(each: PaperCell) -> str:
    if not each.text:
        return "---"
    text = each.text.replace("−", "-").replace("±", r"\pm")
    return {BEST: rf"$\mathbf{{{text}}}$", SECOND: rf"\underline{{${text}$}}", "": f"${text}$"}[each.mark]


def escape(text: str) -> str:
    """`text` with everything that LaTeX would interpret made literal."""
    return text.translate(LATEX)


def _seen(seen: Seen) -> dict[str, str]:
    counts = {"test_same": seen.same, "test_alike": seen.alike}
    return {name: "" if count is None else str(count) for name, count in counts.items()}


def _latex_cell(cell: Cell) -> str:
    if not cell.text:
        return "---"
    text = cell.text.replace("−", "-").replace("±", r"\pm")
    text = rf"$\mathbf{{{text}}}$" if cell.verdict in DECIDED else f"${text}$"
    return rf"{text} {{\scriptsize ({cell.n})}}"
