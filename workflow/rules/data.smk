# World -> tokenizer where the domain trains one, pretraining pools, SFT samples, RL prompts, test
# prompts; one rule each, so that a changed setting makes only what it affects again.
from grpo_origin.config.grid import DATA_FILES, PROMPT_SETS


rule tokenizer:
    output:
        PATTERNS.data(**GROUP, name=TOKENIZER),
    log:
        PATTERNS.log("tokenizer", "{axis}", "seed~{seed}"),
    resources:
        **cluster("data"),
    params:
        **settings_of("world"),
        axis=axis_of,
        base=base_of,
        code=code_in_domain("tokenizer"),
    script:
        "../scripts/tokenizer.py"


rule pretraining_data:
    input:
        remake_outdated,
        tokenizer=tokenizer_of,
    output:
        id=PATTERNS.data(**GROUP, name="pretrain-id"),
        ood=PATTERNS.data(**GROUP, name="pretrain-ood"),
    log:
        PATTERNS.log("pretraining_data", "{axis}", "seed~{seed}"),
    resources:
        **cluster("data"),
    params:
        **settings_of("world"),
        axis=axis_of,
        samples=pool_sizes,
        code=code_in_domain("pretraining_data"),
    script:
        "../scripts/pretraining_data.py"


rule prompts:
    input:
        remake_outdated,
        tokenizer=tokenizer_of,
    output:
        PATTERNS.data(**GROUP, name="{set}"),
    log:
        PATTERNS.log("prompts", "{axis}", "seed~{seed}", "{set}"),
    wildcard_constraints:
        set="|".join(PROMPT_SETS),
    resources:
        **cluster("prompts"),
    params:
        **settings_of("world"),
        axis=axis_of,
        counts=prompt_counts,
        code=code_in_domain("prompts"),
    script:
        "../scripts/prompts.py"


rule data_summary:
    input:
        **{name.replace("-", "_"): data_of(name) for name in DATA_FILES},
        tokenizer=tokenizer_of,
    output:
        PATTERNS.data(**GROUP, name="summary"),
    log:
        PATTERNS.log("data_summary", "{axis}", "seed~{seed}"),
    resources:
        **cluster("data"),
    params:
        **settings_of("world"),
        axis=axis_of,
        ratios=lambda wildcards: member_of(wildcards).settings.axis_ratios(wildcards.axis),
        samples=lambda wildcards: member_of(wildcards).settings.pretrain.samples,
        code=code_in_domain("data_summary"),
    script:
        "../scripts/data_summary.py"
