"""The step `report`: files of finished runs in, one page with tables and figures out."""

import dataclasses

from gessl.files import atomic_json
from gessl.layout import report_dir
from gessl.records.step import Step
from gessl.report.collect import collect
from gessl.report.export import ids, paper_csv, paper_latex, to_csv, to_latex
from gessl.report.figures import draw_all
from gessl.report.page import render
from gessl.report.paper import paper_table
from gessl.report.plan import ReportPlan
from gessl.report.states import input_files
from gessl.report.style import PAGE, settings
from gessl.report.tables import build_tables


def report(plan: ReportPlan) -> None:
    """Write `results/report/<grid>/`; unfinished runs are shown as what they are.

    Raises:
        UserError: an input was altered since it was made, is damaged, or contradicts another.
    """
    out = report_dir(plan.grid)
    with Step("report", plan.grid, out, inputs=input_files(plan), config=dataclasses.asdict(plan)) as step:
        collected = collect(plan)
        tables = build_tables(plan, collected)
        with settings():
            drawings = draw_all(plan, collected, tables)
        paper = paper_table(plan, tables)
        if paper:
            step.path("tables/paper.csv").write_text(paper_csv(paper), encoding="utf-8")
            step.path("tables/paper.tex").write_text(paper_latex(paper), encoding="utf-8")
        for table in tables:
            step.path(f"tables/{table.name}.csv").write_text(to_csv(table), encoding="utf-8")
            step.path(f"tables/{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
        for drawing in drawings:
            step.path(f"figures/{drawing.name}.svg").write_bytes(drawing.file)
        with settings(printed=True):
            for drawing in draw_all(plan, collected, tables):
                step.path(f"figures/{drawing.name}.pdf").write_bytes(drawing.file)
        atomic_json(step.path("ids.json"), ids(tables))
        step.path(PAGE).write_text(render(plan, collected, tables, drawings, paper), encoding="utf-8")
