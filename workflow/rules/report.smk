"""The σ-report of the whole grid."""


def report_folder(name):
    return layout.report_dir(EXPERIMENT.name) / name


rule report:
    """One self-contained page, tables as CSV and LaTeX, figures."""
    input:
        scores=scores(RUNS, "record.json"),
    output:
        page=report(
            report_folder("sigma-report.html"),
            caption="../report/sigma-report.rst",
            category="σ-report",
            labels={"grid": EXPERIMENT.name},
        ),
        ids=report_folder("ids.json"),
        record=report_folder("record.json"),
        tables=directory(report_folder("tables")),
        figures=report(
            directory(report_folder("figures")),
            patterns=["{figure}.svg"],
            caption="../report/figure.rst",
            category="Figures",
        ),
    log:
        f"logs/report/{EXPERIMENT.name}.log",
    benchmark:
        f"logs/benchmarks/report/{EXPERIMENT.name}.tsv"
    params:
        state=state("gessl.report.step"),
        plan=EXPERIMENT.report_plan(),
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        "{GESSL} report --config {PLAN} > {log} 2>&1"


onerror:
    # cells that failed do not keep the others from being seen
    shell(f"{GESSL} report --config {PLAN} || true")
