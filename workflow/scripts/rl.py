from grpo_origin.jobs.job import job, runtime

with job(
    snakemake,
    "{method} {axis} seed~{seed} ood~{ratio} on {trained_on}".format(**snakemake.wildcards),
):
    from grpo_origin.config.stages import LoraSettings, NumericsSettings, RLSettings
    from grpo_origin.data.source import Source
    from grpo_origin.rl.method import find
    from grpo_origin.rl.stage import train_rl

    params = snakemake.params
    train_rl(
        snakemake.input.model,
        snakemake.input.prompts,
        snakemake.wildcards.trained_on,
        snakemake.output[0],
        params.checkpoint,
        data=Source.of_job(snakemake),
        rl=RLSettings(**params.rl),
        method=find(snakemake.wildcards.method)(**params.method),
        lora=LoraSettings(**params.lora) if params.lora else None,
        numerics=NumericsSettings(**params.numerics),
        runtime=runtime(snakemake),
    )
