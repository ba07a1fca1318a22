from grpo_origin.jobs.job import job, runtime

with job(snakemake, "calibration {axis} seed~{seed} ood~{ratio}".format(**snakemake.wildcards)):
    from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
    from grpo_origin.data.source import Source
    from grpo_origin.evaluation.calibration import calibration

    params = snakemake.params
    calibration(
        dict(zip(params.stages, snakemake.input.stages, strict=True)),
        snakemake.input.test,
        snakemake.output[0],
        axis=snakemake.wildcards.axis,
        ratio=snakemake.wildcards.ratio,
        domain=Source.of_job(snakemake).domain,
        evaluation=EvaluationSettings(**params.evaluation),
        numerics=NumericsSettings(**params.numerics),
        runtime=runtime(snakemake),
    )
