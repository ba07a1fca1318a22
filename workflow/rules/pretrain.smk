rule pretrain:
    input:
        id=data_of("pretrain-id"),
        ood=data_of("pretrain-ood"),
    output:
        directory(PATTERNS.stage(**CELL, stage="pretrain")),
    log:
        PATTERNS.log("pretrain", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("pretrain"),
    params:
        **settings_of("world", "model", "pretrain", "numerics"),
        checkpoint=PATTERNS.checkpoint(**CELL, stage="pretrain"),
        code=code_of("pretrain"),
    script:
        "../scripts/pretrain.py"
