from grpo_origin.jobs.job import job

with job(snakemake, "tables"):
    from grpo_origin.analysis.sources import by_variant
    from grpo_origin.analysis.table_files import write_readme, write_tables

    inputs, params = snakemake.input, snakemake.params
    sources = by_variant(
        inputs,
        params,
        completion_files=inputs.completions,
        probe_files=inputs.probes,
        head_files=inputs.heads,
    )
    write_tables(snakemake.output.tables, sources)
    write_readme(snakemake.output.readme, params.names)
