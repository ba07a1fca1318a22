# RL from the SFT model, one job a method and split of prompts.
RL_STAGE = rl_stage("{prompts}", "{method}")
RL_CODE = {
    name: code_fingerprint(
        "tasks", "tokenizer", "data", "model", "train", "grpo", "method", f"methods/{name}"
    )
    for name in SETTINGS.methods
}


rule grpo:
    input:
        model=PATHS.stage(**CELL, stage="sft"),
        prompts=PATHS.data(**GROUP, name="grpo"),
    output:
        directory(PATHS.stage(**CELL, stage=RL_STAGE)),
    log:
        PATHS.log("grpo", "{axis}", "seed~{seed}", "ood~{ratio}", RL_STAGE),
    wildcard_constraints:
        method=_alternatives(SETTINGS.methods),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("grpo"),
    params:
        **settings_of("world", "grpo"),
        method=lambda wildcards: SETTINGS.methods[wildcards.method].model_dump(),
        checkpoint=PATHS.checkpoint(**CELL, stage=RL_STAGE),
        code=lambda wildcards: RL_CODE[wildcards.method],
    script:
        "../scripts/grpo.py"
