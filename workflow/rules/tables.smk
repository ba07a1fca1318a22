# Evaluations and runs to convergence -> tables: three jobs, each makes a group of the registry.
from grpo_origin.analysis.tables import GROUPS, names_of

EVALUATION_TABLES, THEORY_TABLES, CLAIM_TABLES = (
    names_of(group, converged=bool(GRID.theory_runs)) for group in GROUPS
)
TABLE_NAMES = [*EVALUATION_TABLES, *THEORY_TABLES, *CLAIM_TABLES]
# Every model that is made, by whichever variant.
STAGE_FOLDERS = [
    folder
    for rule in ("pretrain", "sft", "rl")
    for wildcards in JOBS[rule]
    for folder in files_of_job(getattr(rules, rule).output, wildcards)
]
EVALUATIONS, PLACES = made_by("evaluate", PATTERNS.evaluation(**CELL))
ANSWERS, ANSWER_PLACES = made_by("answers", PATTERNS.answers(**CELL))
FAITHFULNESS, FAITHFULNESS_PLACES = made_by("faithfulness", faithfulness_of(PATTERNS, **CELL))
CALIBRATION, CALIBRATION_PLACES = made_by("calibration", calibration_of(PATTERNS, **CELL))
PROBES = [probes_of(PATHS, **cell) for cell in GRID.jobs["probes"]]
HEADS = [representation_of(PATHS, **cell) for cell in GRID.jobs["representation"]]

# Where a log of RL comes from: variant, axis, seed, OOD ratio and stage, and its model folder.
TRAINED = [
    (variant, *cell.values(), stage.name)
    for variant, member in FAMILY.items()
    for cell in member.grid.cells
    for stage in member.grid.rl_stages
]
TRAINED_FOLDERS = [
    stage_folder(variant, {"axis": axis, "seed": seed, "ratio": ratio}, stage)
    for variant, axis, seed, ratio, stage in TRAINED
]

# By variant: KL weights of its methods, completions of an RL stage, OOD samples that SFT is shown,
# tokens of right completions of OOD prompts before RL.
BETAS = {variant: member.betas for variant, member in FAMILY.items()}
BUDGETS = {variant: member.budget for variant, member in FAMILY.items()}
DEMONSTRATIONS = {variant: member.demonstrations for variant, member in FAMILY.items()}
GOLD_TOKENS = {variant: member.gold_tokens for variant, member in FAMILY.items()}


rule tables:
    input:
        evaluations=EVALUATIONS,
        training=TRAINED_FOLDERS,
        answers=ANSWERS,
        faithfulness=FAITHFULNESS,
        calibration=CALIBRATION,
        completions=[completions_of(PATHS, **cell) for cell in GRID.shown_cells],
        probes=PROBES,
        heads=HEADS,
    output:
        tables=list(table_outputs(EVALUATION_TABLES)),
        readme=PATHS.tables_readme,
    log:
        PATHS.log("tables"),
    resources:
        **cluster("figures"),
    params:
        **settings_of("claims"),
        places=PLACES,
        answer_places=ANSWER_PLACES,
        faithfulness_places=FAITHFULNESS_PLACES,
        calibration_places=CALIBRATION_PLACES,
        trained=TRAINED,
        names=TABLE_NAMES,
        code=code_of("tables"),
    script:
        "../scripts/tables.py"


rule theory_tables:
    input:
        runs=[PATHS.theory(**run) for run in GRID.theory_runs],
        traces=[PATHS.theory(**run, trace=True) for run in GRID.theory_runs],
        samples=[PATHS.sampling(**cell) for cell in GRID.sampled_cells],
    output:
        tables=list(table_outputs(THEORY_TABLES)),
    log:
        PATHS.log("theory_tables"),
    resources:
        **cluster("figures"),
    params:
        **settings_of("claims"),
        # A missing input makes nothing run by itself: what is read is part of the params.
        runs=GRID.theory_runs,
        sampled=GRID.sampled_cells,
        code=code_of("theory"),
    script:
        "../scripts/theory.py"


rule claims:
    input:
        evaluations=EVALUATIONS,
        training=TRAINED_FOLDERS,
        answers=ANSWERS,
        faithfulness=FAITHFULNESS,
        calibration=CALIBRATION,
        runs=[PATHS.theory(**run) for run in GRID.theory_runs],
        heads=HEADS,
        reference=[ancient(str(REFERENCE[0]))] if IS_COMPARED else [],
    output:
        tables=list(table_outputs(CLAIM_TABLES)),
    log:
        PATHS.log("claims"),
    resources:
        **cluster("figures"),
    params:
        **settings_of("claims"),
        runs=GRID.theory_runs,
        places=PLACES,
        answer_places=ANSWER_PLACES,
        faithfulness_places=FAITHFULNESS_PLACES,
        calibration_places=CALIBRATION_PLACES,
        trained=TRAINED,
        betas=BETAS,
        budgets=BUDGETS,
        demonstrations=DEMONSTRATIONS,
        gold_tokens=GOLD_TOKENS,
        reference=content_fingerprint(REFERENCE[0]) if IS_COMPARED else None,
        code=code_of("claims"),
    script:
        "../scripts/claims.py"
