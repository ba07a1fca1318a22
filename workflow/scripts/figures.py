from grpo_origin.jobs.job import job

with job(snakemake, "figures"):
    from pathlib import Path

    import pandas as pd

    from grpo_origin.report.figures import DRAW, of_method, read_tables
    from grpo_origin.report.plotting import save, style

    params = snakemake.params
    tables = read_tables(dict(zip(params.tables, snakemake.input, strict=True)))
    tables["run"] = pd.DataFrame([{"beta": params.beta}])
    own = {name: of_method(table, params.method) for name, table in tables.items()}
    with style():
        for (kind, axis), png, pdf in zip(
            params.figures, snakemake.output.png, snakemake.output.pdf, strict=True
        ):
            print(f"drawing {Path(png).stem}", flush=True)
            save(DRAW[kind](tables if kind == "methods" else own, axis), png, pdf)
