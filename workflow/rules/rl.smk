# RL from the SFT model, one job a method and split of prompts.
from grpo_origin.config.paths import rl_stage

RL_STAGE = rl_stage("{trained_on}", "{method}")
RL_CODE = {name: code_of("rl", f"rl/methods/{name}") for name in METHODS}


rule rl:
    input:
        model=PATHS.stage(**CELL, stage="sft"),
        prompts=PATHS.data(**GROUP, name="grpo"),
    output:
        directory(PATHS.stage(**CELL, stage=RL_STAGE)),
    log:
        PATHS.log("rl", "{axis}", "seed~{seed}", "ood~{ratio}", RL_STAGE),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("rl"),
    params:
        **settings_of("world", "rl", "numerics"),
        method=lambda wildcards: METHODS[wildcards.method].model_dump(),
        checkpoint=PATHS.checkpoint(**CELL, stage=RL_STAGE),
        code=lambda wildcards: RL_CODE[wildcards.method],
    script:
        "../scripts/rl.py"
