from grpo_origin.job import job, runtime

with job(snakemake.log[0], "sft {axis} seed~{seed} ood~{ratio}".format(**snakemake.wildcards)):
    from grpo_origin.config import SFTSettings, WorldSettings
    from grpo_origin.tasks import World
    from grpo_origin.train import sft

    params = snakemake.params
    sft(
        snakemake.input.model,
        snakemake.input.samples,
        snakemake.output[0],
        params.checkpoint,
        world=World(WorldSettings(**params.world).nodes, int(snakemake.wildcards.seed)),
        sft=SFTSettings(**params.sft),
        runtime=runtime(snakemake),
    )
