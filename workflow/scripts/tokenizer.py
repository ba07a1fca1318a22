from grpo_origin.jobs.job import job

with job(snakemake, "tokenizer {axis} seed~{seed}".format(**snakemake.wildcards)):
    from grpo_origin.data.source import Source, write_tokenizer

    write_tokenizer(Source.of_job(snakemake), snakemake.output[0])
