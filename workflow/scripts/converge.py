from grpo_origin.jobs.job import job, runtime

with job(
    snakemake,
    "{method} to convergence, beta {beta}, {axis} seed~{seed} ood~{ratio}".format(
        **snakemake.wildcards
    ),
):
    from grpo_origin.config.schema import TheorySettings
    from grpo_origin.config.stages import NumericsSettings, EvaluationSettings
    from grpo_origin.rl.converge import converge
    from grpo_origin.data.source import Source

    params, wildcards = snakemake.params, snakemake.wildcards
    converge(
        snakemake.input.model,
        snakemake.input.prompts,
        snakemake.input.test,
        snakemake.output.prompts,
        snakemake.output.trace,
        method=wildcards.method,
        beta=wildcards.beta,
        axis=wildcards.axis,
        ratio=wildcards.ratio,
        domain=Source.of_job(snakemake).domain,
        theory=TheorySettings(**params.theory),
        evaluation=EvaluationSettings(**params.evaluation),
        numerics=NumericsSettings(**params.numerics),
        runtime=runtime(snakemake),
    )
