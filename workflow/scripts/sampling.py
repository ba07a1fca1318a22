from grpo_origin.jobs.job import job, runtime

with job(snakemake, "sampling {axis} seed~{seed} ood~{ratio}".format(**snakemake.wildcards)):
    from grpo_origin.config.stages import NumericsSettings, EvaluationSettings
    from grpo_origin.evaluation.sampling import sampling

    params, wildcards = snakemake.params, snakemake.wildcards
    sampling(
        snakemake.input.model,
        snakemake.input.test,
        snakemake.output[0],
        axis=wildcards.axis,
        seed=int(wildcards.seed),
        ratio=wildcards.ratio,
        prompts=params.prompts,
        samples=params.samples,
        evaluation=EvaluationSettings(**params.evaluation),
        numerics=NumericsSettings(**params.numerics),
        runtime=runtime(snakemake),
    )
