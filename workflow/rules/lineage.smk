"""The audit: every byte re-hashed, every record followed to the raw data."""


rule audit:
    """Passes, or names the file that was altered among those that the reports are made of."""
    input:
        lambda w: reports(),  # by their times, too: a copy is audited anew
    output:
        report("logs/audit.json", caption="../report/audit.rst", category="Lineage"),
    log:
        "logs/audit/audit.log",
    priority: SOON
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        grids=[word for name in BATCH.experiments for word in ("--grid", name)],
    shell:
        # what else lies in results/ is no matter of these grids; 3: nothing is wrong but that sources were edited meanwhile
        "gessl audit --json {params.grids} > {output:q} 2> {log:q} || [ $? -eq 3 ]"
