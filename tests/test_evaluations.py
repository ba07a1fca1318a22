"""Reading evaluation files: what is whole is joined, what is not is named."""

import numpy as np
import pandas as pd
import pytest

from grpo_origin.analysis.evaluations import read_evaluations
from grpo_origin.evaluation.table import COLUMNS
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import write_table
from planting import evaluations


def write(path, table):
    import pyarrow as pa

    write_table(path, pa.Table.from_pandas(table, preserve_index=False))
    return path


def test_read_joins_files(tmp_path):
    first, second = evaluations([0.1, 0.9]), evaluations([0.2, 0.3], seed=1)
    table = read_evaluations(
        [write(tmp_path / "a.parquet", first), write(tmp_path / "b.parquet", second)]
    )
    assert len(table) == 4
    assert set(table.columns) == set(COLUMNS)
    assert np.exp(table["log_mass"]).tolist() == pytest.approx([0.1, 0.9, 0.2, 0.3])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda table: table.drop(columns="log_mass"), "without column log_mass"),
        (lambda table: pd.concat([table, table.head(1)]), "twice"),
        (lambda table: table.assign(log_mass=np.nan), "missing or no log"),
        (lambda table: table.assign(log_mass=0.5), "missing or no log"),
        (lambda table: table.assign(log_mass="low"), "foreign"),
        (lambda table: table.head(0), "no evaluations"),
        (lambda table: table.drop(columns="method"), "without column method"),
        (lambda table: table.assign(method="grpo"), "stage sft"),
        (lambda table: table.assign(trained_on="id"), "stage sft"),
    ],
)
def test_read_refuses_foreign_files(tmp_path, spoil, message):
    path = write(tmp_path / "evaluation.parquet", spoil(evaluations([0.1, 0.9])))
    with pytest.raises(ArtefactError, match=message):
        read_evaluations([path])


def test_read_refuses_truncated_and_repeated_files(tmp_path):
    path = write(tmp_path / "a.parquet", evaluations([0.1, 0.9]))
    other = write(tmp_path / "b.parquet", evaluations([0.1, 0.9]))
    with pytest.raises(ArtefactError, match=r"b\.parquet: repeats"):
        read_evaluations([path, other])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtefactError, match=r"a\.parquet"):
        read_evaluations([path])
