# Tables -> figures -> report. What is marked by `report(...)` is in `snakemake --report` too.
from grpo_origin.config.places import run_readme


report: "../report/run.rst"


FIGURE_TABLES = sorted({name for drawing in FIGURES.values() for name in drawing.entry.tables})
PAGE_TABLES = [
    name
    for name in ("claims", "warnings", "completions", *SHOWN_TABLES, *EXPLORER_TABLES)
    if name in TABLE_NAMES
]


rule figures:
    input:
        [PATHS.table(name, "parquet") for name in FIGURE_TABLES],
    output:
        png=[
            report(
                PATHS.figure(name, "png"),
                caption=os.path.abspath(PATHS.figure(name, "rst")),
                category=drawing.entry.category,
                labels={"figure": drawing.entry.name, "axis": drawing.axis or "all"},
            )
            for name, drawing in FIGURES.items()
        ],
        pdf=[PATHS.figure(name, "pdf") for name in FIGURES],
    log:
        PATHS.log("figures"),
    resources:
        **cluster("figures"),
    params:
        figures={name: (drawing.entry.name, drawing.axis) for name, drawing in FIGURES.items()},
        method=SETTINGS.main_method,
        beta=BETAS[BASE][SETTINGS.main_method],
        equivalent=SETTINGS.claims.equivalent,
        code=code_of("figures"),
    script:
        "../scripts/figures.py"


rule report:
    input:
        figures=[PATHS.figure(name, "png") for name in FIGURES],
        tables=[PATHS.table(name, "parquet") for name in PAGE_TABLES],
        stages=STAGE_FOLDERS,
    output:
        page=report(
            PATHS.report,
            caption="../report/page.rst",
            category="The report as one page",
            labels={"page": "report.html"},
        ),
        captions=[PATHS.figure(name, "rst") for name in FIGURES],
        readme=run_readme(PATHS),
    log:
        PATHS.log("report"),
    resources:
        **cluster("figures"),
    params:
        unlike_reference=unlike_reference(),
        beta=BETAS[BASE][SETTINGS.main_method],
        settings=SETTINGS.model_dump(mode="json", exclude={"runtime", "resources"}),
        template=[content_fingerprint(part) for part in PAGE_PARTS],
        code=code_of("report"),
    script:
        "../scripts/report.py"


ALL_TARGETS = [
    PATHS.report,
    run_readme(PATHS),
    [PATHS.figure(name, suffix) for name in FIGURES for suffix in ("png", "pdf", "rst")],
    PATHS.table_files(TABLE_NAMES),
    PATHS.tables_readme,
    EVALUATIONS,
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
