from grpo_origin.config.places import completions_of, faithfulness_of


rule evaluate:
    input:
        stages=stages_of_cell,
        test=data_of("test"),
    output:
        PATTERNS.evaluation(**CELL),
    log:
        PATTERNS.log("evaluate", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("evaluate"),
    params:
        **settings_of("evaluation", "numerics"),
        stages=stage_names,
        variant=lambda wildcards: member_of(wildcards).variant,
        code=code_of("evaluate"),
    script:
        "../scripts/evaluate.py"


# Only where a right answer counts whatever its trace, in the run and in variants: exact masses are of one trace.
rule answers:
    input:
        stages=stages_of_cell,
        test=data_of("test"),
    output:
        PATTERNS.answers(**CELL),
    log:
        PATTERNS.log("answers", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("evaluate"),
    params:
        **settings_of("world", "evaluation", "numerics"),
        stages=stage_names,
        variant=lambda wildcards: member_of(wildcards).variant,
        code=code_of("answers"),
    script:
        "../scripts/answers.py"


# Only where `faithfulness` is set.
rule faithfulness:
    input:
        stages=stages_of_cell,
        test=data_of("test"),
    output:
        faithfulness_of(PATTERNS, **CELL),
    log:
        PATTERNS.log("faithfulness", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("evaluate"),
    params:
        **settings_of("world", "faithfulness", "evaluation", "numerics"),
        stages=stage_names,
        variant=lambda wildcards: member_of(wildcards).variant,
        code=code_of("faithfulness"),
    script:
        "../scripts/faithfulness.py"


# What the report shows of what models write: of the run's own settings, in two cells an axis.
rule completions:
    input:
        stages=[PATHS.stage(**CELL, stage=name) for name in GRID.shown_stages],
        test=PATHS.data(**GROUP, name="test"),
        evaluation=PATHS.evaluation(**CELL),
    output:
        completions_of(PATHS, **CELL),
    log:
        PATHS.log("completions", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("evaluate"),
    params:
        **settings_of("world", "numerics"),
        stages=GRID.shown_stages,
        code=code_of("completions"),
    script:
        "../scripts/completions.py"
