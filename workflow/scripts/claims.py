from grpo_origin.job import job

with job(snakemake.log[0], "claims"):
    from grpo_origin.compare import ledgers, transcend
    from grpo_origin.config import ClaimsSettings
    from grpo_origin.files import read_table
    from grpo_origin.statistics import read_evaluations
    from grpo_origin.tables import write

    params = snakemake.params
    theory = read_table(snakemake.input.theory[0]).to_pandas() if snakemake.input.theory else None
    evaluations, settings = read_evaluations(snakemake.input.evaluations), ClaimsSettings(**params.claims)
    write(ledgers(evaluations, settings, theory, params.betas), snakemake.output.csv[0], snakemake.output.parquet[0])
    write(transcend(evaluations, settings, params.betas), snakemake.output.csv[1], snakemake.output.parquet[1])
