"""Registered studies: no arm is scored before all runs of its study are trained."""


rule unseal:
    """The list of a study's trained runs, which each evaluation of them reads."""
    input:
        lambda w: by_record(
            *(f"{layout.run_dir(run)}/record.json" for run in BATCH.runs if w.grid in BATCH.studies.get(run, ()))
        ),
    output:
        layout.unsealed_dir("{grid}") / "record.json",
    log:
        "logs/unseal/{grid}.log",
    priority: SOON
    resources:
        mem_mb=500,
        runtime=60,
    shell:
        "gessl unseal {wildcards.grid:q} > {log:q} 2>&1"
