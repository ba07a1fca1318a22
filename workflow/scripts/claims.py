from grpo_origin.jobs.job import job

with job(snakemake, "claims"):
    from grpo_origin.analysis.sources import Sources
    from grpo_origin.analysis.table_files import write_tables
    from grpo_origin.config.schema import ClaimsSettings

    inputs, params = snakemake.input, snakemake.params
    sources = Sources(
        evaluation_files=inputs.evaluations,
        training=[
            (*place, folder) for place, folder in zip(params.trained, inputs.training, strict=True)
        ],
        runs=inputs.runs,
        claims=ClaimsSettings(**params.claims),
        betas=params.betas,
        budget=params.budget,
        reference=next(iter(inputs.reference), ""),
    )
    write_tables(snakemake.output.tables, sources)
