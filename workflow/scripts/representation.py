from grpo_origin.jobs.job import job, runtime

with job(snakemake, "representation {axis} seed~{seed} ood~{ratio}".format(**snakemake.wildcards)):
    from grpo_origin.config.representation import RepresentationSettings
    from grpo_origin.config.stages import NumericsSettings
    from grpo_origin.data.source import Source
    from grpo_origin.rl.heads import write_heads

    params, wildcards = snakemake.params, snakemake.wildcards
    write_heads(
        snakemake.input.model,
        snakemake.input.test,
        snakemake.output[0],
        axis=wildcards.axis,
        ratio=wildcards.ratio,
        source=Source.of_job(snakemake),
        representation=RepresentationSettings(**params.representation),
        numerics=NumericsSettings(**params.numerics),
        runtime=runtime(snakemake),
    )
