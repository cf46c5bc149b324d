"""Pretraining, one job a run; its checkpoints lie in work/, where no retry deletes them."""


rule pretrain:
    """A base method alone or under GeSSL, resumed from its last checkpoint if there is one."""
    input:
        images=lambda w: prepared(w.run, "images.npy"),
        card=lambda w: prepared(w.run, "card.json"),
        order=lambda w: task_file(w.run, "order.npy"),
        records=lambda w: [
            prepared(w.run, "record.json"),
            task_file(w.run, "record.json"),
        ],
    output:
        encoder=layout.run_dir("{run}") / "encoder.safetensors",
        model=layout.run_dir("{run}") / "model.safetensors",
        metrics=layout.run_dir("{run}") / "metrics.jsonl",
        views=layout.run_dir("{run}") / "views.npy",
        config=layout.run_dir("{run}") / "config.json",
        record=layout.run_dir("{run}") / "record.json",
    log:
        "logs/pretrain/{run}.log",
    benchmark:
        "logs/benchmarks/pretrain/{run}.tsv"
    threads: EXPERIMENT.efficiency.threads
    resources:
        mem_mb=resource("pretrain", "mem_mb"),
        runtime=resource("pretrain", "runtime"),
        gpu=resource("pretrain", "gpu"),
    params:
        plan=PLAN,
        state=lambda w: state(
            "gessl.training.pretrain",
            f"gessl.methods.{RUNS[w.run].science.method_name}",
        ),
    shell:
        "gessl pretrain {wildcards.run} --config {params.plan} > {log} 2>&1"
