"""The σ-report of each grid."""


rule report:
    """One self-contained page, tables as CSV and LaTeX, figures."""
    input:
        lambda w: by_record(*scores(BATCH.experiments[w.grid].scored)),
    output:
        # tables/ and figures/ lie next to these and in the record: as directories, Snakemake would put files of its own
        # into them, and how many there are depends on the scores
        page=report(
            layout.report_dir("{grid}") / "sigma-report.html",
            caption="../report/sigma-report.rst",
            category="σ-report",
            labels={"grid": "{grid}"},
        ),
        ids=layout.report_dir("{grid}") / "ids.json",
        record=layout.report_dir("{grid}") / "record.json",
    log:
        "logs/report/{grid}.log",
    priority: SOON
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        spec=lambda w: SPECS.report(w.grid),
    shell:
        "gessl report --spec {params.spec:q} > {log:q} 2>&1"


onerror:
    # cells that failed do not keep the others from being seen: these reports could not be started
    for spec in map(SPECS.report, unscored()):
        SPECS.write(spec)
        shell("gessl report --spec {spec:q} || true")
