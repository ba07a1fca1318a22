rule pretrain:
    input:
        id=data_of("pretrain-id"),
        ood=data_of("pretrain-ood"),
        tokenizer=tokenizer_of,
    output:
        directory(PATTERNS.stage(**CELL, stage="pretrain")),
    log:
        PATTERNS.log("pretrain", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("pretrain"),
    params:
        **settings_of("world", "model", "pretrain", "numerics"),
        axis=axis_of,
        base=base_of,
        checkpoint=PATTERNS.checkpoint(**CELL, stage="pretrain"),
        code=code_in_domain("pretrain"),
    script:
        "../scripts/pretrain.py"
