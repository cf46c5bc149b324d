"""Task files, drawn once per data set and seed; every method is scored on the same ones."""


rule tasks:
    """Few-shot episodes, label subsets, σ suite."""
    input:
        rules.prepare.output.index,
        rules.prepare.output.card,
        rules.prepare.output.record,
    output:
        episodes=layout.tasks_dir("{dataset}", "{seed}") / "episodes.npz",
        labels=layout.tasks_dir("{dataset}", "{seed}") / "labels.npz",
        sigma=layout.tasks_dir("{dataset}", "{seed}") / "sigma.npz",
        card=layout.tasks_dir("{dataset}", "{seed}") / "card.json",
        record=layout.tasks_dir("{dataset}", "{seed}") / "record.json",
    log:
        "logs/tasks/{dataset}-s{seed}.log",
    resources:
        mem_mb=growing(2000),
        runtime=60,
    params:
        plan=PLAN,
        state=state("gessl.tasks.draw"),
        settings=lambda w: repr(BATCH.tasks(w.dataset)),  # text, for Snakemake ignores what it cannot write down
    shell:
        "gessl tasks {wildcards.dataset:q} {wildcards.seed:q} --config {params.plan:q} > {log:q} 2>&1"
