from grpo_origin.jobs.job import job

with job(snakemake, "data summary {axis} seed~{seed}".format(**snakemake.wildcards)):
    from grpo_origin.data.source import Source
    from grpo_origin.data.summary import write_summary

    params = snakemake.params
    source = Source.of_job(snakemake)
    inputs = snakemake.input.items()
    files = {name.replace("_", "-"): path for name, path in inputs if name != "tokenizer"}
    write_summary(source, files, params.ratios, params.samples, snakemake.output[0])
