from grpo_origin.jobs.job import job, runtime

with job(snakemake, "pretrain {axis} seed~{seed} ood~{ratio}".format(**snakemake.wildcards)):
    from grpo_origin.config.stages import ModelSettings, NumericsSettings, PretrainSettings
    from grpo_origin.tasks.world import World
    from grpo_origin.training.loop import pretrain

    params = snakemake.params
    pretrain(
        snakemake.input.id,
        snakemake.input.ood,
        snakemake.output[0],
        params.checkpoint,
        world=World.of(params.world, snakemake.wildcards.seed),
        ratio=snakemake.wildcards.ratio,
        model=ModelSettings(**params.model),
        pretrain=PretrainSettings(**params.pretrain),
        numerics=NumericsSettings(**params.numerics),
        runtime=runtime(snakemake),
    )
