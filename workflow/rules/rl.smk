# RL from the SFT model, one job a method and split of prompts.
from grpo_origin.config.paths import rl_stage

RL_STAGE = rl_stage("{trained_on}", "{method}")
RL_CODE = {
    name: code_in_domain("rl", f"rl/methods/{name}")
    for member in FAMILY.values()
    for name in member.methods
}


rule rl:
    input:
        model=model_before(RL_STAGE),
        prompts=data_of("grpo"),
        tokenizer=tokenizer_of,
    output:
        directory(PATTERNS.stage(**CELL, stage=RL_STAGE)),
    log:
        PATTERNS.log("rl", "{axis}", "seed~{seed}", "ood~{ratio}", RL_STAGE),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("rl"),
    params:
        **settings_of("world", "rl", "lora", "numerics"),
        axis=axis_of,
        method=lambda wildcards: member_of(wildcards).methods[wildcards.method].model_dump(),
        checkpoint=PATTERNS.checkpoint(**CELL, stage=RL_STAGE),
        code=lambda wildcards: RL_CODE[wildcards.method](wildcards),
    script:
        "../scripts/rl.py"
