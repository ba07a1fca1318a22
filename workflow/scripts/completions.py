from grpo_origin.jobs.job import job, runtime

with job(snakemake, "completions {axis} seed~{seed} ood~{ratio}".format(**snakemake.wildcards)):
    from grpo_origin.config.stages import NumericsSettings
    from grpo_origin.evaluation.written import write_completions
    from grpo_origin.data.source import Source

    params = snakemake.params
    write_completions(
        dict(zip(params.stages, snakemake.input.stages, strict=True)),
        snakemake.input.test,
        snakemake.input.evaluation,
        snakemake.output[0],
        axis=snakemake.wildcards.axis,
        ratio=snakemake.wildcards.ratio,
        domain=Source.of_job(snakemake).domain,
        numerics=NumericsSettings(**params.numerics),
        runtime=runtime(snakemake),
    )
