# World -> pretraining pools, SFT samples, RL prompts, test prompts; one rule each, so that a
# changed setting makes only what it affects again.
from grpo_origin.config.grid import DATA_FILES, PROMPT_SETS
from grpo_origin.config.notation import ood_count

PROMPT_COUNTS = {
    "sft": {"samples": SETTINGS.sft.samples},
    "grpo": {"prompts": STUDY.rl_prompts, "sft_samples": SETTINGS.sft.samples},
    "test": {"prompts": SETTINGS.evaluation.prompts},
}


rule pretraining_data:
    input:
        remake_outdated,
    output:
        id=PATHS.data(**GROUP, name="pretrain-id"),
        ood=PATHS.data(**GROUP, name="pretrain-ood"),
    log:
        PATHS.log("pretraining_data", "{axis}", "seed~{seed}"),
    resources:
        **cluster("data"),
    params:
        **settings_of("world"),
        axis=axis_of,
        samples={
            "id": SETTINGS.pretrain.samples,
            "ood": ood_count(SETTINGS.pretrain.ood_pool, SETTINGS.pretrain.samples),
        },
        code=code_of("pretraining_data"),
    script:
        "../scripts/pretraining_data.py"


rule prompts:
    input:
        remake_outdated,
    output:
        PATHS.data(**GROUP, name="{set}"),
    log:
        PATHS.log("prompts", "{axis}", "seed~{seed}", "{set}"),
    wildcard_constraints:
        set="|".join(PROMPT_SETS),
    resources:
        **cluster("prompts"),
    params:
        **settings_of("world"),
        axis=axis_of,
        counts=lambda wildcards: PROMPT_COUNTS[wildcards.set],
        code=code_of("prompts"),
    script:
        "../scripts/prompts.py"


rule data_summary:
    input:
        **{name.replace("-", "_"): PATHS.data(**GROUP, name=name) for name in DATA_FILES},
    output:
        PATHS.data(**GROUP, name="summary"),
    log:
        PATHS.log("data_summary", "{axis}", "seed~{seed}"),
    resources:
        **cluster("data"),
    params:
        **settings_of("world"),
        axis=axis_of,
        ratios=lambda wildcards: SETTINGS.axis_ratios(wildcards.axis),
        samples=SETTINGS.pretrain.samples,
        code=code_of("data_summary"),
    script:
        "../scripts/data_summary.py"
