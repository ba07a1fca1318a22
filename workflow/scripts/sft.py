from grpo_origin.jobs.job import job, runtime

with job(snakemake, "sft {axis} seed~{seed} ood~{ratio}".format(**snakemake.wildcards)):
    from grpo_origin.config.stages import LoraSettings, NumericsSettings, SFTSettings
    from grpo_origin.data.source import Source
    from grpo_origin.training.loop import sft

    params = snakemake.params
    sft(
        snakemake.input.model,
        snakemake.input.samples,
        snakemake.output[0],
        params.checkpoint,
        domain=Source.of_job(snakemake).domain,
        sft=SFTSettings(**params.sft),
        lora=LoraSettings(**params.lora) if params.lora else None,
        numerics=NumericsSettings(**params.numerics),
        runtime=runtime(snakemake),
    )
