from grpo_origin.jobs.job import job

with job(snakemake, "report"):
    import json
    from pathlib import Path

    from grpo_origin.jobs.files import read_table
    from grpo_origin.report.page import write_report

    params = snakemake.params
    seeds, prompts = len(params.settings["seeds"]), params.settings["evaluation"]["prompts"]
    interval = (
        "95 % t interval over seeds (over prompts where seeds agree)"
        if seeds > 1
        else "95 % interval over prompts (one seed)"
    )
    theory_seeds = min(seeds, params.settings["theory"]["seeds"])
    figures = []
    for (kind, axis), png in zip(params.figures, snakemake.input.figures, strict=True):
        about = params.kinds[kind]
        words = {
            "axis": axis,
            "seeds": seeds,
            "prompts": prompts,
            "interval": interval,
            "beta": f"{params.beta:g}",
        }
        words |= {
            "theory_seeds": theory_seeds,
            "bin_prompts": params.settings["claims"]["band_prompts"],
        }
        category, title, caption, law = (
            about.get(key, "").format(**words) for key in ("category", "title", "caption", "law")
        )
        caption = f"{caption} {law}" if law and params.beta > 0 else caption
        if (
            params.method != "grpo" and about["per"] != "theory"
        ):  # figures of one method show this one
            category, title, caption = (
                text.replace("GRPO", params.method) for text in (category, title, caption)
            )
        figures.append((category, title, caption, png))
    checks = [
        (*about, read_table(path).to_pandas())
        for about, path in zip(params.checks, snakemake.input.checks, strict=True)
    ]
    provenance = [
        {"stage": Path(folder).name} | json.loads((Path(folder) / "provenance.json").read_text())
        for folder in snakemake.input.stages
    ]
    write_report(
        snakemake.output[0],
        run=params.run,
        claims=read_table(snakemake.input.claims).to_pandas(),
        method=params.method,
        figures=figures,
        tables=checks,
        provenance=provenance,
        settings=params.settings,
    )
