from grpo_origin.job import job

with job(snakemake.log[0], "pretraining data {axis} seed~{seed}".format(**snakemake.wildcards)):
    from grpo_origin.config import AxisSettings, WorldSettings
    from grpo_origin.data import Source, write_pool

    params = snakemake.params
    source = Source(WorldSettings(**params.world), AxisSettings(**params.axis), int(snakemake.wildcards.seed))
    for split, samples in params.samples.items():
        write_pool(source, split, samples, snakemake.output[split])
