"""Downstream evaluation: features once per run, then every protocol on them, in one process."""


rule evaluate:
    """Score rows, per-example outcomes, features."""
    input:
        encoder=rules.pretrain.output.encoder,
        config=rules.pretrain.output.config,
        images=lambda w: prepared(w.run, "images.npy"),
        index=lambda w: prepared(w.run, "index.csv"),
        card=lambda w: prepared(w.run, "card.json"),
        episodes=lambda w: task_file(w.run, "episodes.npz"),
        labels=lambda w: task_file(w.run, "labels.npz"),
        sigma=lambda w: task_file(w.run, "sigma.npz"),
    output:
        scores=layout.scores_dir("{run}") / "scores.csv",
        outcomes=layout.scores_dir("{run}") / "outcomes.npz",
        features=layout.scores_dir("{run}") / "features.npy",
        record=layout.scores_dir("{run}") / "record.json",
    log:
        "logs/evaluate/{run}.log",
    benchmark:
        "logs/benchmarks/evaluate/{run}.tsv"
    params:
        state=state("gessl.evaluation.step"),
        settings=EXPERIMENT.evaluation,
    threads: EXPERIMENT.efficiency.threads
    resources:
        mem_mb=resource("evaluate", "mem_mb"),
        runtime=resource("evaluate", "runtime"),
        gpu=resource("evaluate", "gpu"),
    shell:
        "{GESSL} evaluate {wildcards.run} --config {PLAN} > {log} 2>&1"
