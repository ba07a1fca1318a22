from grpo_origin.job import job, runtime

with job(snakemake.log[0], "sampling {axis} seed~{seed} ood~{ratio}".format(**snakemake.wildcards)):
    from grpo_origin.config import EvaluationSettings
    from grpo_origin.evaluate import sampling

    params, wildcards = snakemake.params, snakemake.wildcards
    sampling(
        snakemake.input.model,
        snakemake.input.test,
        snakemake.output[0],
        axis=wildcards.axis,
        seed=int(wildcards.seed),
        ratio=wildcards.ratio,
        prompts=params.prompts,
        samples=params.samples,
        evaluation=EvaluationSettings(**params.evaluation),
        runtime=runtime(snakemake),
    )
