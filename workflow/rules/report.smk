"""The σ-report of the whole grid."""


rule report:
    """One self-contained page, tables as CSV and LaTeX, figures."""
    input:
        scores=scores(RUNS, "record.json"),
    output:
        # tables/ and figures/ lie beside these and in the record: as directories, Snakemake would put files of its own
        # into them, and how many there are depends on the scores
        page=report(
            REPORT / "sigma-report.html",
            caption="../report/sigma-report.rst",
            category="σ-report",
            labels={"grid": EXPERIMENT.name},
        ),
        ids=REPORT / "ids.json",
        record=REPORT / "record.json",
    log:
        f"logs/report/{EXPERIMENT.name}.log",
    benchmark:
        f"logs/benchmarks/report/{EXPERIMENT.name}.tsv"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        config=PLAN,
        state=state("gessl.report.step"),
        plan=EXPERIMENT.report_plan(),
    shell:
        "gessl report --config {params.config} > {log} 2>&1"


onerror:
    # cells that failed do not keep the others from being seen
    shell(f"gessl report --config {PLAN} || true")
