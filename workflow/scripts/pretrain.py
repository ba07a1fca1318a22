from grpo_origin.jobs.job import job, runtime

with job(snakemake, "pretrain {axis} seed~{seed} ood~{ratio}".format(**snakemake.wildcards)):
    from grpo_origin.config.stages import ModelSettings, NumericsSettings, PretrainSettings
    from grpo_origin.data.source import Source
    from grpo_origin.training.loop import pretrain

    params = snakemake.params
    pretrain(
        snakemake.input.id,
        snakemake.input.ood,
        snakemake.output[0],
        params.checkpoint,
        domain=Source.of_job(snakemake).domain,
        ratio=snakemake.wildcards.ratio,
        model=ModelSettings(**params.model),
        pretrain=PretrainSettings(**params.pretrain),
        numerics=NumericsSettings(**params.numerics),
        runtime=runtime(snakemake),
    )
