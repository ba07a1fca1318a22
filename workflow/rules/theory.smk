# Theory against practice: RL to convergence for the cells an axis names under `theory`, and
# sampling as a check of exact masses.
from grpo_origin.config.grid import CONVERGED_METHODS


rule converge:
    input:
        model=PATHS.stage(**CELL, stage=SETTINGS.before_rl[-1]),
        prompts=PATHS.data(**GROUP, name="grpo"),
        tokenizer=tokenizer_of,
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
        axis=axis_of,
        theory=SETTINGS.theory.model_dump(exclude={"betas", "seeds", "samples", "sampled_prompts"}),
        code=code_in_domain("converge", *(f"rl/methods/{name}" for name in CONVERGED_METHODS)),
    script:
        "../scripts/converge.py"


rule sampling:
    input:
        model=PATHS.stage(**CELL, stage=SETTINGS.before_rl[-1]),
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


rule theory:
    input:
        rules.theory_tables.output,
