from grpo_origin.jobs.job import job

with job(snakemake, "pretraining data {axis} seed~{seed}".format(**snakemake.wildcards)):
    from grpo_origin.data.pools import write_pool
    from grpo_origin.data.source import Source

    params = snakemake.params
    source = Source.of_job(snakemake)
    for split, samples in params.samples.items():
        write_pool(source, split, samples, snakemake.output[split])
