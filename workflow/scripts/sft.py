from grpo_origin.jobs.job import job, runtime

with job(snakemake, "sft {axis} seed~{seed} ood~{ratio}".format(**snakemake.wildcards)):
    from grpo_origin.config.stages import NumericsSettings, SFTSettings
    from grpo_origin.tasks.world import World
    from grpo_origin.training.loop import sft

    params = snakemake.params
    sft(
        snakemake.input.model,
        snakemake.input.samples,
        snakemake.output[0],
        params.checkpoint,
        world=World.of(params.world, snakemake.wildcards.seed),
        sft=SFTSettings(**params.sft),
        numerics=NumericsSettings(**params.numerics),
        runtime=runtime(snakemake),
    )
