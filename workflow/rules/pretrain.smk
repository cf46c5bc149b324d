"""Pretraining, one job a run; its checkpoints lie in work/, where no retry deletes them."""


rule pretrain:
    """A base method alone or under GeSSL, resumed from its last checkpoint, or gone on with from its trunk, if it has one."""
    input:
        lambda w: by_record(prepared(RUNS[w.run].science.dataset), *goes_on(w.run)),
    output:
        # stands for all that the step writes, which it replaces itself: six files a run would slow a large grid; not to
        # be deleted before, for the step leaves what is current as it is
        update(layout.run_dir("{run}") / "record.json"),
    log:
        "logs/pretrain/{run}.log",
    priority: lambda w: TURNS[w.run]
    threads: THREADS
    resources:
        mem_mb=growing(resource("pretrain", "mem_mb")),
        runtime=resource("pretrain", "runtime"),
        gpu=resource("pretrain", "gpu"),
    params:
        spec=lambda w: SPECS.pretrain(w.run),
    shell:
        # exec: no shell between SLURM and the process that its signals are for
        "exec gessl pretrain --spec {params.spec:q} > {log:q} 2>&1"
