"""Downstream evaluation: features once per run and target, then every protocol on them; heavy ones on their own."""


rule evaluate:
    """The scores of one run, or encoder, on one data set: a record for each protocol, and one that stands for them all."""
    input:
        lambda w: by_record(
            *trained(w.run), *unsealed(w.run), prepared(w.target), *drawn(w.run, w.target), *heavy(w.run, w.target)
        ),
    output:
        layout.scores_dir("{run}", "{target}") / "record.json",
    log:
        "logs/evaluate/{run}/{target}.log",
    priority: SOON
    threads: THREADS
    resources:
        mem_mb=growing(resource("evaluate", "mem_mb")),
        runtime=resource("evaluate", "runtime"),
        gpu=resource("evaluate", "gpu"),
    params:
        spec=lambda w: SPECS.evaluate(w.run, w.target),
    shell:
        "gessl evaluate --spec {params.spec:q} > {log:q} 2>&1"


rule evaluate_heavy:
    """The scores of one run, or encoder, on one data set by a protocol that takes a job of its own."""
    input:
        lambda w: by_record(*trained(w.run), *unsealed(w.run), prepared(w.target), *drawn(w.run, w.target)),
    output:
        layout.scores_dir("{run}", "{target}") / "{stem}" / "record.json",
    log:
        "logs/evaluate/{run}/{target}/{stem}.log",
    priority: SOON
    threads: THREADS
    resources:
        mem_mb=growing(resource("heavy", "mem_mb")),
        runtime=resource("heavy", "runtime"),
        gpu=resource("heavy", "gpu"),
    params:
        spec=lambda w: SPECS.heavy(w.run, w.target, protocol_id(w.stem)),
    shell:
        "gessl evaluate --spec {params.spec:q} > {log:q} 2>&1"
