"""Downstream evaluation: features once per run, then every protocol on them."""


rule evaluate:
    """The scores of one run."""
    input:
        lambda w: [trained(w.run), *records(w.run)],
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
        "gessl evaluate {wildcards.run} --config {params.plan} > {log} 2>&1"


# An evaluation may take seconds, as long as starting Python and importing torch; then a few runs of one method share a
# job (efficiency.evaluations_per_job). Snakemake has no outputs that depend on a wildcard's members, hence a rule per
# batch, which it prefers to the one above. Where thousands of runs are evaluated, 1 a job is the faster choice.
for members in (job for job in BATCH.evaluation_jobs() if len(job) > 1):

    rule:
        name:
            f"evaluate-{members[0]}"
        input:
            list(map(trained, members)),
            list(dict.fromkeys(itertools.chain(*map(records, members)))),
        output:
            scores(members),
        log:
            f"logs/evaluate/{members[0]}.log",
        threads: BATCH.owner(members[0]).efficiency.threads
        resources:
            mem_mb=growing(reserved("evaluate", "mem_mb", members[0])),
            runtime=reserved("evaluate", "runtime", members[0]),
            gpu=reserved("evaluate", "gpu", members[0]),
        params:
            plan=PLAN,
            runs=members,
            state=rules.evaluate.params.state,
            settings=repr(BATCH.evaluation(members[0])),
        shell:
            "gessl evaluate {params.runs} --config {params.plan} > {log} 2>&1"
