from grpo_origin.jobs.job import job

with job(snakemake, "data summary {axis} seed~{seed}".format(**snakemake.wildcards)):
    from grpo_origin.data.source import Source
    from grpo_origin.data.summary import write_summary

    params = snakemake.params
    source = Source.of(params.world, params.axis, snakemake.wildcards.seed)
    files = {name.replace("_", "-"): path for name, path in snakemake.input.items()}
    write_summary(source, files, params.ratios, params.samples, snakemake.output[0])
