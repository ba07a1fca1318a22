from grpo_origin.jobs.job import job

with job(snakemake, "tables"):
    from grpo_origin.analysis import statistics
    from grpo_origin.analysis.tables import training_logs, write

    params = snakemake.params
    evaluations = statistics.read_evaluations(snakemake.input.evaluations)
    prompts = statistics.prompt_gains(evaluations)
    by = ("stage", "split")
    tables = {
        "summary": statistics.summarise(evaluations),
        "seed_means": statistics.seed_means(evaluations),
        "gains": statistics.gains(evaluations),
        "seed_gains": statistics.seed_gains(evaluations),
        "mass_gains": statistics.binned_gains(prompts, by=by, fewest=params.bin_prompts),
        "seed_mass_gains": statistics.seed_binned_gains(prompts, by=by, fewest=params.bin_prompts),
        "training": training_logs(params.cells, params.stages, snakemake.input.stages),
    }
    for name, csv, parquet in zip(
        params.names, snakemake.output.csv, snakemake.output.parquet, strict=True
    ):
        write(tables[name], csv, parquet)
