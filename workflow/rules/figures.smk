# Evaluations -> tables -> figures -> report.
STAGE_FOLDERS = [PATHS.stage(**cell, stage=stage) for cell in GRID.cells for stage in STAGE_NAMES]

CLAIM_TABLES = ["claims", "transcend"]

ALL_TABLES = [*TABLES, *THEORY_TABLES, *CLAIM_TABLES]
FIGURE_TABLES = sorted({name for drawing in FIGURES.values() for name in drawing.entry.tables})
PAGE_TABLES = [name for name in ("claims", "warnings", *SHOWN_TABLES) if name in ALL_TABLES]

# KL weight of each method's objective where that is GRPO's, else 0: the law and its bound say nothing of it.
BETAS = {
    name: method.settings(SETTINGS.rl).beta * method.objective_is_grpos
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
        figures={name: (drawing.entry.name, drawing.axis) for name, drawing in FIGURES.items()},
        method=SETTINGS.main_method,
        beta=BETAS[SETTINGS.main_method],
        code=code_of("figures"),
    script:
        "../scripts/figures.py"


rule report:
    input:
        figures=[PATHS.figure(name, "png") for name in FIGURES],
        tables=[PATHS.table(name, "parquet") for name in PAGE_TABLES],
        stages=STAGE_FOLDERS,
    output:
        PATHS.report,
    log:
        PATHS.log("report"),
    resources:
        **cluster("figures"),
    params:
        beta=BETAS[SETTINGS.main_method],
        settings=SETTINGS.model_dump(mode="json", exclude={"runtime", "resources"}),
        template=content_fingerprint(PAGE_TEMPLATE),
        code=code_of("report"),
    script:
        "../scripts/report.py"


ALL_TARGETS = [
    PATHS.report,
    [PATHS.figure(name, suffix) for name in FIGURES for suffix in ("png", "pdf")],
    [PATHS.table(name, suffix) for name in ALL_TABLES for suffix in ("csv", "parquet")],
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
