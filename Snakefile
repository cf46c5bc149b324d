"""GeSSL experiments: raw data → pretraining, tasks → evaluation → σ-report → audit.

Steps: workflow/rules/*.smk. Default experiment: config/config.yaml; another one: --configfile config/paper/NAME.yaml;
several as one: --configfile config/paper.yaml, a list of them.
"""

from snakemake.utils import min_version

min_version("9.27")

# only where no experiment was given: Snakemake would merge the two files
if not config.keys() & {"name", "experiments"}:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


# used under `--sdm apptainer` only: then make the environment from the lock inside this image
container: "docker://python:3.11-bookworm"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/tasks.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/study.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/lineage.smk"


rule all:
    """The whole chain, ending in a passing audit."""
    default_target: True
    input:
        rules.audit.output,
        scores(lost()),
