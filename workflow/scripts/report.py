from grpo_origin.jobs.job import job

with job(snakemake, "report"):
    import json
    from pathlib import Path

    from grpo_origin.config.paths import PROVENANCE
    from grpo_origin.config.schema import Settings
    from grpo_origin.jobs.files import read_table
    from grpo_origin.report.draw import by_name
    from grpo_origin.report.page import write_captions, write_report
    from grpo_origin.report.readme import write_readme

    tables = by_name(snakemake.input.tables)
    records = {folder: Path(folder) / PROVENANCE for folder in snakemake.input.stages}
    settings, beta = Settings.model_validate(snakemake.params.settings), snakemake.params.beta
    write_captions(settings, beta, by_name(snakemake.output.captions))
    write_readme(snakemake.output.readme, settings)
    write_report(
        snakemake.output.page,
        settings=settings,
        beta=beta,
        unlike_reference=snakemake.params.unlike_reference,
        figures=by_name(snakemake.input.figures),
        tables={name: read_table(path).to_pandas() for name, path in tables.items()},
        provenance=[
            {"stage": Path(folder).name} | json.loads(record.read_text(encoding="utf-8"))
            for folder, record in records.items()
        ],
    )
