from grpo_origin.jobs.job import job

with job(snakemake, "claims"):
    from grpo_origin.analysis.sources import by_variant
    from grpo_origin.analysis.table_files import write_tables

    inputs, params = snakemake.input, snakemake.params
    sources = by_variant(
        inputs,
        params,
        params.betas,
        params.budgets,
        params.demonstrations,
        params.gold_tokens,
        runs=inputs.runs,
        head_files=inputs.heads,
        reference=next(iter(inputs.reference), ""),
    )
    write_tables(snakemake.output.tables, sources)
