from grpo_origin.job import job

with job(snakemake.log[0], "evaluate {axis} seed~{seed} ood~{ratio}".format(**snakemake.wildcards)):
    from grpo_origin.config import EvaluationSettings, load_settings
    from grpo_origin.evaluate import evaluate

    params = snakemake.params
    evaluate(
        dict(zip(params.stages, snakemake.input.stages, strict=True)),
        snakemake.input.test,
        snakemake.output[0],
        axis=snakemake.wildcards.axis,
        seed=int(snakemake.wildcards.seed),
        ratio=snakemake.wildcards.ratio,
        evaluation=EvaluationSettings(**params.evaluation),
        runtime=load_settings(snakemake.config).runtime,
    )
