"""The σ-report of the whole grid."""


def report_folder(name):
    return layout.report_dir(EXPERIMENT.name) / name


rule report:
    """One self-contained page, tables as CSV and LaTeX, figures."""
    input:
        scores=scores(RUNS, "record.json"),
    output:
        # tables/ and figures/ lie beside these and in the record: as directories, Snakemake would put files of its own
        # into them, and how many there are depends on the scores
        page=report(
            report_folder("sigma-report.html"),
            caption="../report/sigma-report.rst",
            category="σ-report",
            labels={"grid": EXPERIMENT.name},
        ),
        ids=report_folder("ids.json"),
        record=report_folder("record.json"),
    log:
        f"logs/report/{EXPERIMENT.name}.log",
    benchmark:
        f"logs/benchmarks/report/{EXPERIMENT.name}.tsv"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        state=state("gessl.report.step"),
        plan=EXPERIMENT.report_plan(),
    shell:
        "{GESSL} report --config {PLAN} > {log} 2>&1"


onerror:
    # cells that failed do not keep the others from being seen
    shell(f"{GESSL} report --config {PLAN} || true")
