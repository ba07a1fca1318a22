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
        category, title, caption = (about[key].format(**words) for key in ("category", "title", "caption"))
        if params.method != "grpo" and about["per"] != "theory":  # figures of one method show this one
            category, title, caption = (text.replace("GRPO", params.method) for text in (category, title, caption))
        figures.append((category, title, caption, png))
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
