# Evaluations -> tables -> figures -> report.
FIGURE_TABLES = [*TABLES, *THEORY_TABLES]
STAGE_FOLDERS = [PATHS.stage(**cell, stage=stage) for cell in GRID.cells for stage in STAGE_NAMES]

CLAIM_TABLES = ["claims", "transcend"]

# Tables shown in the report beside its figures: name -> category and title.
CHECKS = {
    "transcend": ("Beyond zero", "Does it transcend? OOD prompts that started from about no mass"),
    "theory": ("Theory against practice", "Runs to convergence against the law"),
    "sampling": ("Theory against practice", "Sampled frequencies against exact masses"),
}
CHECKS = {name: CHECKS[name] for name in CHECKS if name in [*THEORY_TABLES, *CLAIM_TABLES]}

# KL weight of each method's objective where that is GRPO's, else 0: the law and its bound say nothing of it.
BETAS = {
    name: method.settings(SETTINGS.rl).beta * (method.objective == "reward-kl")
    for name, method in METHODS.items()
}


rule tables:
    input:
        evaluations=[PATHS.evaluation(**cell) for cell in GRID.cells],
        stages=STAGE_FOLDERS,
    output:
        csv=[PATHS.table(name, "csv") for name in TABLES],
        parquet=[PATHS.table(name, "parquet") for name in TABLES],
    log:
        PATHS.log("tables"),
    resources:
        **cluster("figures"),
    params:
        names=TABLES,
        cells=GRID.cells,
        stages=STAGE_NAMES,
        bin_prompts=SETTINGS.claims.band_prompts,
        code=code_of("tables"),
    script:
        "../scripts/tables.py"


rule claims:
    input:
        evaluations=[PATHS.evaluation(**cell) for cell in GRID.cells],
        theory=[PATHS.table("theory_prompts", "parquet")] if GRID.theory_runs else [],
    output:
        csv=[PATHS.table(name, "csv") for name in CLAIM_TABLES],
        parquet=[PATHS.table(name, "parquet") for name in CLAIM_TABLES],
    log:
        PATHS.log("claims"),
    resources:
        **cluster("figures"),
    params:
        **settings_of("claims"),
        betas=BETAS,
        code=code_of("claims"),
    script:
        "../scripts/claims.py"


rule figures:
    input:
        [PATHS.table(name, "parquet") for name in FIGURE_TABLES],
    output:
        png=[PATHS.figure(name, "png") for name in FIGURES],
        pdf=[PATHS.figure(name, "pdf") for name in FIGURES],
    log:
        PATHS.log("figures"),
    resources:
        **cluster("figures"),
    params:
        tables=FIGURE_TABLES,
        figures=list(FIGURES.values()),
        method=SETTINGS.main_method,
        beta=BETAS[SETTINGS.main_method],
        code=code_of("figures"),
    script:
        "../scripts/figures.py"


rule report:
    input:
        figures=[PATHS.figure(name, "png") for name in FIGURES],
        claims=PATHS.table("claims", "parquet"),
        checks=[PATHS.table(name, "parquet") for name in CHECKS],
        stages=STAGE_FOLDERS,
    output:
        PATHS.report,
    log:
        PATHS.log("report"),
    resources:
        **cluster("figures"),
    params:
        run=SETTINGS.run,
        method=SETTINGS.main_method,
        beta=BETAS[SETTINGS.main_method],
        figures=list(FIGURES.values()),
        kinds=FIGURE_KINDS,
        checks=list(CHECKS.values()),
        settings=SETTINGS.model_dump(exclude={"runtime", "resources"}),
        code=code_of("report"),
    script:
        "../scripts/report.py"


ALL_TARGETS = [
    PATHS.report,
    [PATHS.figure(name, suffix) for name in FIGURES for suffix in ("png", "pdf")],
    [
        PATHS.table(name, suffix)
        for name in [*FIGURE_TABLES, *CLAIM_TABLES]
        for suffix in ("csv", "parquet")
    ],
    [PATHS.evaluation(**cell) for cell in GRID.cells],
    [PATHS.data(axis, seed, "summary") for axis in SETTINGS.axes for seed in SETTINGS.seeds],
]


onsuccess:
    made = {
        "Report": PATHS.report,
        "Figures": f"{PATHS.root}/figures/",
        "Tables": f"{PATHS.root}/tables/",
    }
    for name, place in made.items():
        if Path(place).exists():
            print(f"{name + ':':8} {place}")
