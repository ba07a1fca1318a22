from grpo_origin.jobs.job import job

with job(snakemake, "theory tables"):
    from grpo_origin.analysis.sources import Sources
    from grpo_origin.analysis.table_files import write_tables
    from grpo_origin.config.schema import ClaimsSettings

    inputs, claims = snakemake.input, ClaimsSettings(**snakemake.params.claims)
    sources = Sources(runs=inputs.runs, traces=inputs.traces, samples=inputs.samples, claims=claims)
    write_tables(snakemake.output.tables, sources)
