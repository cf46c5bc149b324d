"""Raw data as DVC pins it, then arrays.

The raw files are no outputs of `fetch`: Snakemake deletes the outputs of a failed or repeated job, and a data set placed
by hand must never be deleted.
"""


rule fetch:
    """Raw data from the DVC cache, a DVC remote, or its source; verified by content hash."""
    input:
        lambda w: by_pin(w.dataset),
    output:
        manifest=layout.manifest_dir("{dataset}") / "manifest.json",
        record=layout.manifest_dir("{dataset}") / "record.json",
    log:
        "logs/fetch/{dataset}.log",
    priority: SOON
    localrule: True  # compute nodes may see no network
    resources:
        dvc=1,  # DVC locks the whole repository
        mem_mb=1000,
        runtime=240,
    shell:
        "gessl fetch {wildcards.dataset:q} > {log:q} 2>&1"


rule prepare:
    """Images (one array of uint8, or the files of pictures), index with splits and content hashes, data card."""
    input:
        lambda w: by_record(*(layout.manifest_dir(w.dataset) / name for name in ("manifest.json", "record.json"))),
    output:
        # and the images, whose files depend on the data set's store: the record stands for them
        index=layout.data_dir("{dataset}") / "index.csv",
        card=layout.data_dir("{dataset}") / "card.json",
        # not deleted before: the next one tells that the bytes are the same again
        record=update(layout.data_dir("{dataset}") / "record.json"),
    log:
        "logs/prepare/{dataset}.log",
    priority: SOON
    resources:
        mem_mb=growing(4000),
        runtime=120,
    shell:
        "gessl prepare {wildcards.dataset:q} > {log:q} 2>&1"
