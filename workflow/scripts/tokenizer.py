from grpo_origin.jobs.job import job

with job(snakemake, "tokenizer {axis} seed~{seed}".format(**snakemake.wildcards)):
    from grpo_origin.data.source import Source, write_tokenizer
    from grpo_origin.training.base import find_base

    base = snakemake.params.base
    folder = find_base(base["name"]).folder if base else None
    write_tokenizer(Source.of_job(snakemake), snakemake.output[0], folder)
