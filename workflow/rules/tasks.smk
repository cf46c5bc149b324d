"""Task files, drawn once per data set and seed by the protocols that need some; every run is scored on the same ones."""


rule tasks:
    """The tasks of each protocol, and a record that stands for them all."""
    input:
        lambda w: by_record(prepared(w.dataset)),
    output:
        layout.tasks_dir("{dataset}", "{seed}") / "record.json",
    log:
        "logs/tasks/{dataset}-s{seed}.log",
    priority: SOON
    resources:
        mem_mb=growing(2000),
        runtime=60,
    params:
        spec=lambda w: SPECS.tasks(w.dataset, int(w.seed)),
    shell:
        "gessl tasks --spec {params.spec:q} > {log:q} 2>&1"
