from grpo_origin.jobs.job import job

with job(snakemake, "theory tables"):
    import pandas as pd

    from grpo_origin.analysis import theory
    from grpo_origin.analysis.tables import write

    tables = {"sampling": theory.sampling_agreement(theory.read_samples(snakemake.input.samples))}
    if snakemake.input.runs:
        prompts = theory.read_prompts_table(snakemake.input.runs)
        trace = pd.concat(
            [pd.read_parquet(path) for path in snakemake.input.traces], ignore_index=True
        )
        tables |= {
            "theory": theory.summarise(prompts, snakemake.params.tolerance),
            "theory_prompts": prompts,
            "theory_trace": trace,
        }
    for name, csv, parquet in zip(
        snakemake.params.names, snakemake.output.csv, snakemake.output.parquet, strict=True
    ):
        write(tables[name], csv, parquet)
