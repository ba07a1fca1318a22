from grpo_origin.job import job

with job(snakemake.log[0], "{set} prompts {axis} seed~{seed}".format(**snakemake.wildcards)):
    from grpo_origin import data
    from grpo_origin.config import AxisSettings, WorldSettings

    params = snakemake.params
    source = data.Source(WorldSettings(**params.world), AxisSettings(**params.axis), int(snakemake.wildcards.seed))
    write = {"sft": data.write_sft, "grpo": data.write_grpo, "test": data.write_test}[snakemake.wildcards.set]
    write(source, path=snakemake.output[0], **params.counts)
