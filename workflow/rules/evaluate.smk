rule evaluate:
    input:
        stages=[PATHS.stage(**CELL, stage=stage) for stage in ALL_STAGES],
        test=PATHS.data(**GROUP, name="test"),
    output:
        PATHS.evaluation(**CELL),
    log:
        PATHS.log("evaluate", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("evaluate"),
    params:
        **settings_of("evaluation"),
        stages=ALL_STAGES,
        code=code_fingerprint("data", "model", "evaluate"),
    script:
        "../scripts/evaluate.py"
