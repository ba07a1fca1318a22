# Theory against practice: RL to convergence for the cells an axis names under `theory`, and
# sampling as a check of exact masses.
# theory: a row a run and pool; theory_prompts: a row a prompt; theory_trace: the course of a run.
from grpo_origin.config.grid import CONVERGED_METHODS

THEORY_TABLES = (["theory", "theory_prompts", "theory_trace"] if GRID.theory_runs else []) + [
    "sampling"
]


rule converge:
    input:
        model=PATHS.stage(**CELL, stage="sft"),
        prompts=PATHS.data(**GROUP, name="grpo"),
        test=PATHS.data(**GROUP, name="test"),
    output:
        prompts=PATHS.theory(**CELL, method="{method}", beta="{beta}"),
        trace=PATHS.theory(**CELL, method="{method}", beta="{beta}", trace=True),
    log:
        PATHS.log("theory", "{axis}", "seed~{seed}", "ood~{ratio}", "{method}~{beta}"),
    wildcard_constraints:
        method="|".join(CONVERGED_METHODS),
        beta=r"[0-9.]+",
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("theory"),
    params:
        **settings_of("world", "evaluation", "numerics"),
        theory=SETTINGS.theory.model_dump(exclude={"betas", "seeds", "samples", "sampled_prompts"}),
        code=code_of("converge", *(f"rl/methods/{name}" for name in CONVERGED_METHODS)),
    script:
        "../scripts/converge.py"


rule sampling:
    input:
        model=PATHS.stage(**CELL, stage="sft"),
        test=PATHS.data(**GROUP, name="test"),
    output:
        PATHS.sampling(**CELL),
    log:
        PATHS.log("sampling", "{axis}", "seed~{seed}", "ood~{ratio}"),
    threads: SETTINGS.runtime.threads
    resources:
        **cluster("theory"),
    params:
        **settings_of("evaluation", "numerics"),
        prompts=SETTINGS.theory.sampled_prompts,
        samples=SETTINGS.theory.samples,
        code=code_of("sampling"),
    script:
        "../scripts/sampling.py"


rule theory_tables:
    input:
        runs=[PATHS.theory(**run) for run in GRID.theory_runs],
        traces=[PATHS.theory(**run, trace=True) for run in GRID.theory_runs],
        samples=[PATHS.sampling(**cell) for cell in GRID.sampled_cells],
    output:
        csv=[PATHS.table(name, "csv") for name in THEORY_TABLES],
        parquet=[PATHS.table(name, "parquet") for name in THEORY_TABLES],
    log:
        PATHS.log("theory_tables"),
    resources:
        **cluster("figures"),
    params:
        names=THEORY_TABLES,
        tolerance=SETTINGS.claims.bound_tolerance,
        code=code_of("theory"),
    script:
        "../scripts/theory.py"


rule theory:
    input:
        rules.theory_tables.output,
