from grpo_origin.job import job

with job(snakemake.log[0], "claims"):
    from grpo_origin.claims import ledger
    from grpo_origin.config import ClaimsSettings
    from grpo_origin.files import read_table
    from grpo_origin.statistics import read_evaluations
    from grpo_origin.tables import write

    params = snakemake.params
    theory = read_table(snakemake.input.theory[0]).to_pandas() if snakemake.input.theory else None
    claims = ledger(read_evaluations(snakemake.input.evaluations), ClaimsSettings(**params.claims), theory, params.beta)
    write(claims, snakemake.output.csv, snakemake.output.parquet)
