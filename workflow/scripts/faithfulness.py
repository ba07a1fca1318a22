from grpo_origin.jobs.job import job, runtime

with job(snakemake, "faithfulness {axis} seed~{seed} ood~{ratio}".format(**snakemake.wildcards)):
    from grpo_origin.config.faithfulness import FaithfulnessSettings
    from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
    from grpo_origin.data.source import Source
    from grpo_origin.evaluation.faithfulness import faithfulness

    params = snakemake.params
    faithfulness(
        dict(zip(params.stages, snakemake.input.stages, strict=True)),
        snakemake.input.test,
        snakemake.output[0],
        axis=snakemake.wildcards.axis,
        ratio=snakemake.wildcards.ratio,
        variant=params.variant,
        domain=Source.of_job(snakemake).domain,
        settings=FaithfulnessSettings(**params.faithfulness),
        evaluation=EvaluationSettings(**params.evaluation),
        numerics=NumericsSettings(**params.numerics),
        runtime=runtime(snakemake),
    )
