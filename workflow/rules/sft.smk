rule sft:
    input:
        model=model_before("sft"),
        samples=data_of("sft"),
        tokenizer=tokenizer_of,
    output:
        directory(PATTERNS.stage(**CELL, stage="sft")),
    log:
        PATTERNS.log("sft", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("sft"),
    params:
        **settings_of("world", "sft", "lora", "numerics"),
        axis=axis_of,
        checkpoint=PATTERNS.checkpoint(**CELL, stage="sft"),
        code=code_in_domain("sft"),
    script:
        "../scripts/sft.py"
