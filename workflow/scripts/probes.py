from grpo_origin.jobs.job import job, runtime

with job(snakemake, "probes {axis} seed~{seed} ood~{ratio}".format(**snakemake.wildcards)):
    from grpo_origin.config.representation import ProbeSettings
    from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
    from grpo_origin.data.source import Source
    from grpo_origin.evaluation.probes import write_probes

    params, wildcards = snakemake.params, snakemake.wildcards
    write_probes(
        dict(zip(params.stages, snakemake.input.stages, strict=True)),
        snakemake.input.test,
        snakemake.output[0],
        axis=wildcards.axis,
        ratio=wildcards.ratio,
        source=Source.of_job(snakemake),
        probes=ProbeSettings(**params.probes),
        evaluation=EvaluationSettings(**params.evaluation),
        numerics=NumericsSettings(**params.numerics),
        runtime=runtime(snakemake),
    )
