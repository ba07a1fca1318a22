configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/progress.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/sft.smk"
include: "workflow/rules/rl.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/theory.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/plan.smk"


rule all:
    default_target: True
    input:
        ALL_TARGETS,
        STAGE_FOLDERS,
