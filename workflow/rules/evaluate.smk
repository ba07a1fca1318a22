rule evaluate:
    input:
        stages=[PATHS.stage(**CELL, stage=stage) for stage in ALL_STAGES],
        test=PATHS.data(**GROUP, name="test"),
    output:
        PATHS.evaluation(**CELL),
    log:
        PATHS.log("evaluate", "{axis}", "seed~{seed}", "ood~{ratio}"),
    params:
        stages=ALL_STAGES,
        **settings_of("evaluation"),
        code=code_fingerprint("data", "model", "evaluate"),
    threads: SETTINGS.runtime.threads
    script:
        "../scripts/evaluate.py"
