rule sft:
    input:
        model=PATHS.stage(**CELL, stage="pretrain"),
        samples=PATHS.data(**GROUP, name="sft"),
    output:
        directory(PATHS.stage(**CELL, stage="sft")),
    log:
        PATHS.log("sft", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("sft"),
    params:
        **settings_of("world", "sft", "numerics"),
        checkpoint=PATHS.checkpoint(**CELL, stage="sft"),
        code=code_of("sft"),
    script:
        "../scripts/sft.py"
