"""The explorer: its data, and in headless Chromium what its choices and clicks do to its marks."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from browser import needs_chromium, seen
from grpo_origin.analysis.spread import LOWEST, mass_spread
from grpo_origin.report.explorer import charts, explorer_data
from grpo_origin.report.registry import EXPLORER_TABLES
from planted_page import written

# What a reader sees: the choice, and the rows behind the marks that are drawn.
READ = """
const marks = (id, kind = "") => [...document.querySelectorAll(`#chart-${id} ${kind} path`)]
  .map((path) => path.__data__?.datum).filter((row) => row?.stage);
const read = () => ({
  chosen: { ...explorer.chosen },
  points: marks("ratios").filter((row) => row.seed !== null && row.mean !== undefined)
    .map((row) => [row.ratio, row.seed, row.stage, row.mean, row.chosen]),
  curves: marks("curves", ".mark-symbol").filter((row) => row.chosen).map((row) => row.value),
  spread: marks("spread").map((row) => [row.stage, row.decade, row.share]),
  cell: [...document.querySelectorAll("#cell tbody tr")].map(
    (row) => [...row.cells].map((cell) => cell.textContent)),
  name: document.getElementById("cell-name").textContent,
  options: Object.fromEntries([...document.querySelectorAll("#explorer select")].map(
    (select) => [select.name, [...select.options].map((option) => option.value)])),
});
const form = document.getElementById("explorer");
const pick = (name, value) => {
  form.elements[name].value = value;
  form.elements[name].dispatchEvent(new Event("change", { bubbles: true }));
  return new Promise((resolve) => setTimeout(resolve, 300));
};
await explorer.ready;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory, settings, full, figures):
    """The text of a page with an explorer."""
    tables = {name: full[name] for name in EXPLORER_TABLES}
    return written(tmp_path_factory.mktemp("page"), settings, figures, **tables)


def planted_mean(full, **where):
    table = full["seed_means"]
    for name, value in where.items():
        table = table[table[name] == value]
    (mean,) = table["mean"]
    return float(f"{mean:.4g}")


def test_spread_counts_prompts_by_decade_of_each_quantity():
    rows = [(-0.01, 0.0, -0.01), (np.log(0.05), 0.0, np.log(0.05)), (-1e4, -9.0, -np.inf)]
    columns = ["log_mass", "log_mass_markers", "log_mass_content"]
    place = {"axis": "a", "seed": 0, "ood_ratio": "0", "stage": "grpo~ood", "split": "ood"}
    spread = mass_spread(pd.DataFrame(rows, columns=columns).assign(**place))
    counts = spread.set_index(["quantity", "decade"])["prompts"].to_dict()
    assert {key: n for key, n in counts.items() if key[0] == "mass"} == {
        ("mass", -1): 1,
        ("mass", -2): 1,
        ("mass", LOWEST): 1,
    }
    assert counts["markers", -1] == 2
    assert counts["markers", -4] == 1
    assert counts["content", LOWEST] == 1
    assert set(spread["method"]) == {"grpo"}


def test_data_is_small_and_has_labels_and_the_order_of_ratios(full):
    data = explorer_data(full, "grpo")
    text = json.dumps(data, allow_nan=False)
    rows = sum(len(data[name]["rows"]) for name in ("seeds", "means", "curves", "spread"))
    assert len(text) < 60 * rows
    assert data["labels"]["grpo~ood"] == "GRPO on OOD prompts"
    assert data["kinds"]["dapo~id"] == "RL on ID prompts"
    assert data["seeds"]["words"]["ratio"] == ["0", "0.02", "0.1"]
    assert data["seeds"]["words"]["metric"] == ["accuracy", "mass", "markers", "content"]


def test_charts_are_valid_vega_lite_of_one_data_set():
    import vl_convert

    for chart in charts().values():
        assert "vega-lite/v6" in chart["$schema"]
        compiled = vl_convert.vegalite_to_vega(chart)
        assert [data["name"] for data in compiled["data"] if "source" not in data] == ["rows"]


@needs_chromium
def test_a_choice_changes_the_marks_and_a_click_chooses_a_cell(tmp_path, page, full):
    script = f"""{READ}
    const first = read();
    await pick("axis", "single"); await pick("ratio", "0.1"); await pick("seed", "2");
    const second = read();
    const point = [...document.querySelectorAll("#chart-ratios path")].find((path) => {{
      const row = path.__data__?.datum;
      return row?.ratio === "0" && row?.seed === 1 && row?.stage === "sft" && row?.mean;
    }});
    point.dispatchEvent(new MouseEvent("click", {{ bubbles: true }}));
    await new Promise((resolve) => setTimeout(resolve, 300));
    const third = read();
    await pick("stage", "grpo~ood");
    const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
    return {{ first, second, third, fourth: read(), hash: location.hash, loaded }};
    """
    result, console = seen(tmp_path, page, script)
    assert console == ""
    assert isinstance(result, dict), result
    first, second, third, fourth = (result[n] for n in ("first", "second", "third", "fourth"))
    assert (first["chosen"]["axis"], first["chosen"]["metric"]) == ("many", "mass")
    assert first["options"]["ratio"] == ["0", "0.02", "0.1"]
    assert len(first["points"]) == 3 * 3 * 4  # ratios, seeds, stages of the main method
    assert second["options"]["ratio"] == ["0", "0.1"]
    assert len(second["points"]) == 2 * 3 * 4
    where = {"axis": "single", "metric": "mass", "split": "ood"}
    for ratio, seed, stage, mean, chosen in second["points"]:
        cell = {"ood_ratio": ratio, "seed": seed, "stage": stage}
        assert mean == planted_mean(full, **where, **cell)
        assert (chosen is True) == ((ratio, seed) == ("0.1", 2))
    assert second["name"] == "single, OOD ratio 0.1, seed 2: OOD prompts"
    shares = {tuple(row[1:]) for row in second["spread"]}
    assert shares == {(-42, 0.75), (-41, 0.25)}
    curves = full["learning_curves"]
    curves = curves[(curves["axis"] == "single") & (curves["ood_ratio"] == "0.1")]
    curves = curves[(curves["seed"] == 2) & (curves["split"] == "ood")]
    wanted = curves.loc[curves["method"] == "grpo", "mass"]
    assert sorted(second["curves"]) == pytest.approx(sorted(wanted), rel=1e-3)
    assert (third["chosen"]["ratio"], third["chosen"]["seed"]) == ("0", "1")
    assert third["name"] == "single, OOD ratio 0, seed 1: OOD prompts"
    sft = next(row for row in third["cell"] if row[0] == "SFT")
    assert float(sft[2]) == pytest.approx(
        planted_mean(full, **where, ood_ratio="0", seed=1, stage="sft"), rel=1e-2
    )
    assert sft[3:6] == ["below 1e-40", "below 1e-5", "below 1e-35"]
    assert {row[2] for row in fourth["points"]} == {"grpo~ood"}
    assert [row[0] for row in fourth["cell"]] == ["GRPO on OOD prompts"]
    assert fourth["cell"][0][6:] == ["0 of 7680", "1e-30", "no"]
    assert "ratio=0&seed=1" in result["hash"]
    assert result["loaded"] == []


@needs_chromium
def test_links_open_cards_and_cells_and_the_search_leaves_matching_rows(tmp_path, page):
    script = f"""{READ}
    const linked = read().chosen;
    const link = document.querySelector(".grid a[href^='#explore']");
    location.hash = link.getAttribute("href");
    await new Promise((resolve) => setTimeout(resolve, 300));
    const followed = read().chosen;
    location.hash = "#claim-1";
    await new Promise((resolve) => setTimeout(resolve, 300));
    const box = document.querySelector("input[type=search]");
    box.value = "NO such claim";
    box.dispatchEvent(new Event("input"));
    const none = document.getElementById("ledger-count").textContent;
    box.value = "GAIN  supported";
    box.dispatchEvent(new Event("input"));
    const some = document.getElementById("ledger-count").textContent;
    document.body.style.maxWidth = "340px"; // of a phone
    dispatchEvent(new Event("resize"));
    await new Promise((resolve) => setTimeout(resolve, 300));
    const wide = [...document.querySelectorAll("body > section > *")]
      .filter((part) => part.scrollWidth > 340 && !part.matches(".scroll"))
      .map((part) => part.outerHTML.slice(0, 80));
    const unnamed = [...document.querySelectorAll("select, input")]
      .filter((field) => !field.labels.length).length;
    return {{ linked, followed, open: document.getElementById("claim-1").open, none, some, wide,
      unnamed }};
    """
    address = "#explore?axis=many&ratio=0.1&seed=1&split=mixed-3&method=dapo"
    result, console = seen(tmp_path, page, script, address)
    assert console == ""
    assert isinstance(result, dict), result
    wanted = {"ratio": "0.1", "seed": "1", "split": "mixed-3", "method": "dapo", "axis": "many"}
    assert wanted.items() <= result["linked"].items()
    followed = result["followed"]
    assert (followed["ratio"], followed["split"], followed["method"]) == ("0", "ood", "grpo")
    assert result["open"] is True
    assert (result["none"], result["some"]) == ("0 of 1 rows", "1 of 1 rows")
    assert result["wide"] == []
    assert result["unnamed"] == 0


def test_data_inside_the_page_is_json_that_markup_cannot_leave(tmp_path, settings, full, figures):
    planted = "</script><script>alert(1)</script>"
    tables = {name: full[name] for name in EXPLORER_TABLES}
    tables["summary"] = tables["summary"].assign(interval=planted)
    text = written(tmp_path, settings, figures, **tables)
    assert "<script>alert" not in text
    (data,) = re.findall(r'id="explorer-data">(.*?)</script>', text)
    assert planted in json.loads(data)["data"]["means"]["words"]["interval"]
