from grpo_origin.config.places import (
    calibration_of,
    completions_of,
    faithfulness_of,
    probes_of,
    representation_of,
)


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


# Only where a right answer counts whatever its trace, in the run and in variants, or where more
# than the reference completion may be right: exact masses are of one.
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


# Only where `faithfulness` is set.
rule faithfulness:
    input:
        stages=stages_of_cell,
        test=data_of("test"),
        tokenizer=tokenizer_of,
    output:
        faithfulness_of(PATTERNS, **CELL),
    log:
        PATTERNS.log("faithfulness", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("evaluate"),
    params:
        **settings_of("world", "faithfulness", "evaluation", "numerics"),
        axis=axis_of,
        stages=stage_names,
        variant=lambda wildcards: member_of(wildcards).variant,
        code=code_in_domain("faithfulness"),
    script:
        "../scripts/faithfulness.py"


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


# Only where the run asks for them, of its own settings: what a linear probe reads off every stage.
rule probes:
    input:
        stages=[PATHS.stage(**CELL, stage=stage.name) for stage in GRID.stages],
        test=PATHS.data(**GROUP, name="test"),
        tokenizer=tokenizer_of,
    output:
        probes_of(PATHS, **CELL),
    log:
        PATHS.log("probes", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("evaluate"),
    params:
        **settings_of("world", "probes", "evaluation", "numerics"),
        axis=axis_of,
        stages=[stage.name for stage in GRID.stages],
        code=code_in_domain("probes"),
    script:
        "../scripts/probes.py"


# Likewise: heads over a fixed set on the pretrained model.
rule representation:
    input:
        model=PATHS.stage(**CELL, stage="pretrain"),
        test=PATHS.data(**GROUP, name="test"),
        tokenizer=tokenizer_of,
    output:
        representation_of(PATHS, **CELL),
    log:
        PATHS.log("representation", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("evaluate"),
    params:
        **settings_of("world", "representation", "numerics"),
        axis=axis_of,
        code=code_in_domain("representation"),
    script:
        "../scripts/representation.py"
