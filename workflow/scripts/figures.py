from grpo_origin.jobs.job import job

with job(snakemake, "figures"):
    from grpo_origin.report.draw import draw_figures

    params = snakemake.params
    draw_figures(
        params.figures,
        snakemake.input,
        snakemake.output.png,
        snakemake.output.pdf,
        method=params.method,
        beta=params.beta,
        equivalent=params.equivalent,
    )
