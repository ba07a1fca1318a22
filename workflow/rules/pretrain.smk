rule pretrain:
    input:
        id=PATHS.data(**GROUP, name="pretrain-id"),
        ood=PATHS.data(**GROUP, name="pretrain-ood"),
    output:
        directory(PATHS.stage(**CELL, stage="pretrain")),
    log:
        PATHS.log("pretrain", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("pretrain"),
    params:
        **settings_of("world", "model", "pretrain", "numerics"),
        checkpoint=PATHS.checkpoint(**CELL, stage="pretrain"),
        code=code_of("pretrain"),
    script:
        "../scripts/pretrain.py"
