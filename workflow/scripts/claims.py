from grpo_origin.jobs.job import job

with job(snakemake, "claims"):
    from grpo_origin.analysis.compare import ledgers, transcend
    from grpo_origin.config.schema import ClaimsSettings
    from grpo_origin.jobs.files import read_table
    from grpo_origin.analysis.statistics import read_evaluations
    from grpo_origin.analysis.tables import write

    params = snakemake.params
    theory = read_table(snakemake.input.theory[0]).to_pandas() if snakemake.input.theory else None
    evaluations, settings = (
        read_evaluations(snakemake.input.evaluations),
        ClaimsSettings(**params.claims),
    )
    write(
        ledgers(evaluations, settings, theory, params.betas),
        snakemake.output.csv[0],
        snakemake.output.parquet[0],
    )
    write(
        transcend(evaluations, settings, params.betas),
        snakemake.output.csv[1],
        snakemake.output.parquet[1],
    )
