from grpo_origin.job import job, runtime

with job(snakemake.log[0], "{method} {axis} seed~{seed} ood~{ratio} on {prompts}".format(**snakemake.wildcards)):
    from grpo_origin.config import GRPOSettings, WorldSettings
    from grpo_origin.grpo import grpo
    from grpo_origin.method import find
    from grpo_origin.tasks import World

    params = snakemake.params
    grpo(
        snakemake.input.model,
        snakemake.input.prompts,
        snakemake.wildcards.prompts,
        snakemake.output[0],
        params.checkpoint,
        world=World(WorldSettings(**params.world).nodes, int(snakemake.wildcards.seed)),
        grpo=GRPOSettings(**params.grpo),
        method=find(snakemake.wildcards.method)(**params.method),
        runtime=runtime(snakemake),
    )
