"""Downstream evaluation: features once per run, then every protocol on them."""


rule evaluate:
    """The scores of one run."""
    input:
        lambda w: [trained(w.run), prepared(w.run), drawn(w.run)],
    output:
        layout.scores_dir("{run}") / "record.json",
    log:
        "logs/evaluate/{run}.log",
    threads: THREADS
    resources:
        mem_mb=growing(resource("evaluate", "mem_mb")),
        runtime=resource("evaluate", "runtime"),
        gpu=resource("evaluate", "gpu"),
    params:
        plan=PLAN,
        state=state("gessl.evaluation.step"),
        settings=of_run(lambda run: repr(BATCH.evaluation(run))),
    shell:
        "gessl evaluate {wildcards.run:q} --config {params.plan:q} > {log:q} 2>&1"
