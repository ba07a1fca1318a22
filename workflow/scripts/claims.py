from grpo_origin.jobs.job import job

with job(snakemake, "claims"):
    from grpo_origin.analysis.sources import by_variant
    from grpo_origin.analysis.table_files import write_tables
    from grpo_origin.config.schema import ClaimsSettings

    inputs, params = snakemake.input, snakemake.params
    sources = by_variant(
        params.places,
        inputs.evaluations,
        params.trained,
        inputs.training,
        ClaimsSettings(**params.claims),
        params.betas,
        params.budgets,
        runs=inputs.runs,
        reference=next(iter(inputs.reference), ""),
    )
    write_tables(snakemake.output.tables, sources)
