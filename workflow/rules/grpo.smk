rule grpo:
    input:
        model=PATHS.stage(**CELL, stage="sft"),
        prompts=PATHS.data(**GROUP, name="grpo"),
    output:
        directory(PATHS.stage(**CELL, stage=rl_stage("{prompts}"))),
    log:
        PATHS.log("grpo", "{axis}", "seed~{seed}", "ood~{ratio}", "{prompts}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("grpo"),
    params:
        **settings_of("world", "grpo"),
        checkpoint=PATHS.checkpoint(**CELL, stage=rl_stage("{prompts}")),
        code=code_fingerprint("tasks", "tokenizer", "data", "model", "train", "grpo"),
    script:
        "../scripts/grpo.py"
