from grpo_origin.jobs.job import job, runtime

with job(snakemake, "evaluate {axis} seed~{seed} ood~{ratio}".format(**snakemake.wildcards)):
    from grpo_origin.config.stages import NumericsSettings, EvaluationSettings
    from grpo_origin.data.source import Source
    from grpo_origin.evaluation.mass import evaluate

    params = snakemake.params
    evaluate(
        dict(zip(params.stages, snakemake.input.stages, strict=True)),
        snakemake.input.test,
        snakemake.output[0],
        axis=snakemake.wildcards.axis,
        seed=int(snakemake.wildcards.seed),
        ratio=snakemake.wildcards.ratio,
        tokens=Source.of_job(snakemake).domain.tokens,
        variant=params.variant,
        evaluation=EvaluationSettings(**params.evaluation),
        numerics=NumericsSettings(**params.numerics),
        runtime=runtime(snakemake),
    )
