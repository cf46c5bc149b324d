"""Downstream evaluation: features once per run, then every protocol on them.

An evaluation takes seconds, as long as starting Python and importing torch; so a few runs of one method share a job.
Snakemake has no outputs that depend on a wildcard's members, hence one rule per batch.
"""

for batch, members in batches():

    rule:
        name:
            f"evaluate-{batch}"
        input:
            [
                layout.run_dir(run) / part
                for run in members
                for part in ("encoder.safetensors", "config.json", "record.json")
            ],
            {prepared(run, part) for run in members for part in ("images.npy", "index.csv", "card.json", "record.json")},
            [
                task_file(run, part)
                for run in members
                for part in ("episodes.npz", "labels.npz", "sigma.npz", "record.json")
            ],
        output:
            scores=scores(members, "scores.csv"),
            outcomes=scores(members, "outcomes.npz"),
            features=scores(members, "features.npy"),
            record=scores(members, "record.json"),
        log:
            f"logs/evaluate/{batch}.log",
        benchmark:
            f"logs/benchmarks/evaluate/{batch}.tsv"
        threads: EXPERIMENT.efficiency.threads
        resources:
            mem_mb=resource("evaluate", "mem_mb"),
            runtime=resource("evaluate", "runtime"),
            gpu=resource("evaluate", "gpu"),
        params:
            plan=PLAN,
            runs=members,
            state=state("gessl.evaluation.step"),
            settings=EXPERIMENT.evaluation,
        shell:
            "gessl evaluate {params.runs} --config {params.plan} > {log} 2>&1"
