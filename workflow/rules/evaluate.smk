from grpo_origin.config.places import calibration_of, completions_of


rule evaluate:
    input:
        stages=stages_of_cell,
        test=data_of("test"),
        tokenizer=tokenizer_of,
    output:
        PATTERNS.evaluation(**CELL),
    log:
        PATTERNS.log("evaluate", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("evaluate"),
    params:
        **settings_of("world", "evaluation", "numerics"),
        axis=axis_of,
        stages=stage_names,
        variant=lambda wildcards: member_of(wildcards).variant,
        code=code_in_domain("evaluate"),
    script:
        "../scripts/evaluate.py"


# Only where a right answer counts whatever its trace, in the run and in variants, or where more than
# the reference completion may be right: exact masses are of one.
rule answers:
    input:
        stages=stages_of_cell,
        test=data_of("test"),
        tokenizer=tokenizer_of,
    output:
        PATTERNS.answers(**CELL),
    log:
        PATTERNS.log("answers", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("evaluate"),
    params:
        **settings_of("world", "evaluation", "numerics"),
        axis=axis_of,
        stages=stage_names,
        variant=lambda wildcards: member_of(wildcards).variant,
        code=code_in_domain("answers"),
    script:
        "../scripts/answers.py"


# Only where answers are probabilities of events that chance decides.
rule calibration:
    input:
        stages=stages_of_cell,
        test=data_of("test"),
        tokenizer=tokenizer_of,
    output:
        calibration_of(PATTERNS, **CELL),
    log:
        PATTERNS.log("calibration", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("evaluate"),
    params:
        **settings_of("world", "evaluation", "numerics"),
        axis=axis_of,
        stages=stage_names,
        code=code_in_domain("calibration"),
    script:
        "../scripts/calibration.py"


# What the report shows of what models write: of the run's own settings, in two cells an axis.
rule completions:
    input:
        stages=[PATHS.stage(**CELL, stage=name) for name in GRID.shown_stages],
        test=PATHS.data(**GROUP, name="test"),
        evaluation=PATHS.evaluation(**CELL),
        tokenizer=tokenizer_of,
    output:
        completions_of(PATHS, **CELL),
    log:
        PATHS.log("completions", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("evaluate"),
    params:
        **settings_of("world", "numerics"),
        axis=axis_of,
        stages=GRID.shown_stages,
        code=code_in_domain("completions"),
    script:
        "../scripts/completions.py"
