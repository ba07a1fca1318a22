from grpo_origin.jobs.job import job

with job(snakemake, "{set} prompts {axis} seed~{seed}".format(**snakemake.wildcards)):
    from grpo_origin.data.prompt_sets import write_grpo, write_sft, write_test
    from grpo_origin.data.source import Source

    params = snakemake.params
    source = Source.of_job(snakemake)
    write = {"sft": write_sft, "grpo": write_grpo, "test": write_test}[snakemake.wildcards.set]
    write(source, path=snakemake.output[0], **params.counts)
