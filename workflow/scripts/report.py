from grpo_origin.job import job

with job(snakemake.log[0], "report"):
    import json
    from pathlib import Path

    from grpo_origin.files import read_table
    from grpo_origin.report import write_report

    params = snakemake.params
    seeds, prompts = len(params.settings["seeds"]), params.settings["evaluation"]["prompts"]
    interval = "95 % t interval over seeds" if seeds > 1 else "95 % interval over prompts (one seed)"
    figures = []
    for (kind, axis), png in zip(params.figures, snakemake.input.figures, strict=True):
        about = params.kinds[kind]
        words = {"axis": axis, "seeds": seeds, "prompts": prompts, "interval": interval}
        figures.append((about["category"], about["title"].format(**words), about["caption"].format(**words), png))
    checks = [(*about, read_table(path).to_pandas()) for about, path in zip(params.checks, snakemake.input.checks, strict=True)]
    provenance = [
        {"stage": Path(folder).name} | json.loads((Path(folder) / "provenance.json").read_text()) for folder in snakemake.input.stages
    ]
    write_report(
        snakemake.output[0],
        run=params.run,
        claims=read_table(snakemake.input.claims).to_pandas(),
        figures=figures,
        tables=checks,
        provenance=provenance,
        settings=params.settings,
    )
