rule evaluate:
    input:
        stages=[PATHS.stage(**CELL, stage=stage) for stage in STAGE_NAMES],
        test=PATHS.data(**GROUP, name="test"),
    output:
        PATHS.evaluation(**CELL),
    log:
        PATHS.log("evaluate", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("evaluate"),
    params:
        **settings_of("evaluation", "numerics"),
        stages=STAGE_NAMES,
        code=code_of("evaluate"),
    script:
        "../scripts/evaluate.py"
