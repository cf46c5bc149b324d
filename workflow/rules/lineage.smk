"""The audit: every byte re-hashed, every record followed to the raw data."""


rule audit:
    """Passes, or names the file that was altered."""
    input:
        rules.report.output.record,
    output:
        report("logs/audit.json", caption="../report/audit.rst", category="Lineage"),
    log:
        "logs/audit/audit.log",
    benchmark:
        "logs/benchmarks/audit/audit.tsv"
    resources:
        mem_mb=1000,
        runtime=60,
    shell:
        "gessl audit --json > {output} 2> {log} || {{ gessl audit > {log} 2>&1; exit 2; }}"
