"""The page of a run, parsed as a browser would: what it shows, links to and escapes."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser

import jinja2
import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from browser import needs_chromium, seen
from grpo_origin.analysis.agreement import COLUMNS
from grpo_origin.config.load import load_settings
from grpo_origin.report.figures import ENTRIES, figures_of
from grpo_origin.report.page import numerics_of, texts, words_of
from grpo_origin.report.registry import SHOWN_TABLES
from planted_page import CLAIM, RECORD, written
from planted_tables import planted_settings

PLANTED = "<script>alert(1)</script> & <b>bold</b>"


class Page(HTMLParser):
    """Headings, links, ids, images, captions and rows of a page, and the text of every element."""

    VOID = ("img", "input", "link", "meta")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.images = [], set(), [], [], []
        self.texts, self.rows, self.classes = {}, [], {}
        self.feed(text)
        assert self.open == [], "elements that are not closed"

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.add(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        self.images += [given] if tag == "img" else []
        if tag not in self.VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")
            self.classes.setdefault(given.get("class"), []).append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_every_figure_is_embedded_under_its_title_with_its_caption(tmp_path, settings, figures):
    page = Page(written(tmp_path, settings, figures))
    head = "data:image/png;base64,"
    assert [image["src"].startswith(head) for image in page.images] == [True] * len(figures)
    embedded = [base64.b64decode(image["src"].removeprefix(head)) for image in page.images]
    for data, path in zip(embedded, figures.values(), strict=True):
        shown, drawn = map(matplotlib.image.imread, (io.BytesIO(data), path))
        np.testing.assert_allclose(shown[..., :3], drawn[..., :3], atol=0.02)
    drawings = figures_of(settings)
    wanted = [texts(entry, words_of(settings, 0.5, axis)) for entry, axis in drawings.values()]
    assert [image["alt"] for image in page.images] == [title for title, _ in wanted]
    assert page.texts["figcaption"] == [caption for _, caption in wanted]
    assert set(drawings) <= set(page.ids)


def test_every_claim_is_a_row_with_its_verdict_and_the_main_method_is_open(
    tmp_path, settings, figures
):
    verdicts = ("supported", "contradicted", "inconclusive")
    claims = [
        CLAIM | {"method": method, "claim": f"{method} {verdict}", "verdict": verdict}
        for method in ("dapo", "grpo")
        for verdict in verdicts
    ]
    claims.append(
        CLAIM | {"claim": "untested", "effect": np.nan, "low": np.nan, "p_adjusted": np.nan}
    )
    page = Page(written(tmp_path, settings, figures, claims=claims))
    rows = {row[1]: row for row in page.rows if len(row) == 8}
    for claim in claims[:-1]:
        row = rows[claim["claim"]]
        assert row[0] == claim["verdict"]
        assert row[2:6] == ["many", "It stays.", "+0.001 [-0.002, +0.004]", "0.5"]
    assert rows["untested"][4:6] == ["–", ""]
    assert rows["claim"][4] == "effect on mass [one-sided bounds]"
    (others,) = [text for text in page.texts["details"] if text.startswith("the same for")]
    assert others.split("\n")[0] == "the same for dapo"
    assert "dapo supported" in others
    assert "grpo supported" not in others
    for verdict in verdicts:
        assert set(page.classes[verdict]) == {"span"}


def test_links_of_the_page_resolve_and_nothing_is_loaded_from_outside(tmp_path, settings, figures):
    shown = {name: pd.DataFrame({"value": [0.123456]}) for name in SHOWN_TABLES}
    shown["agreement"] = pd.DataFrame({name: [0.123456] for name in COLUMNS})
    text = written(tmp_path, settings, figures, **shown)
    page = Page(text)
    anchors = [link.removeprefix("#") for link in page.links if link.startswith("#")]
    titles = [title.lower().replace(" ", "-") for title in page.texts["h2"]]
    assert anchors[: len(titles)] == titles
    assert set(anchors) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert page.texts["nav"][0].replace("\n", "") == "".join(page.texts["h2"])
    assert page.texts["h2"][:4] == ["In short", "Verdicts", "Terms", "Claims"]
    assert page.texts["h2"][-1] == "How it was run"
    assert [link for link in page.links if not link.startswith("#")] == ["data:,"]
    assert "iframe" not in page.tags
    assert "src=" not in text.replace('src="data:', "")
    for outside in ("http://", "https://", "@import", "url("):
        assert outside not in text
    for _, title in SHOWN_TABLES.values():
        assert title in page.texts["h3"]
    assert page.rows.count(["0.123"]) == len(SHOWN_TABLES) - 1
    assert page.rows.count(["0.123"] * len(COLUMNS)) == 1


def test_settings_and_software_are_shown_and_what_changes_no_result_is_not(
    tmp_path, settings, figures
):
    long = RECORD | {"seconds": 1234.5}
    page = Page(written(tmp_path, settings, figures, provenance=[long]))
    (shown,) = page.texts["pre"]
    config = json.loads(shown)
    assert load_settings(config) == settings
    assert not {"runtime", "resources"} & set(config)
    assert config["axes"]["single"]["ood"] == ["trav trav;4;A"]
    assert "git commit abc; torch 2.13.0" in page.texts["p"]
    assert ["sft", "cpu", "1", "1234", "1234", "300"] in page.rows


def test_planted_markup_stays_text(tmp_path, figures):
    names = {"claim": PLANTED, "note": PLANTED, "statement": PLANTED}
    planted = planted_settings(axes={"many": {"theory": []}})
    tables = {"transcend": pd.DataFrame({PLANTED: [PLANTED]})}
    shown = {name: path for name, path in figures.items() if name in figures_of(planted)}
    record = RECORD | {"stage": PLANTED, "git_commit": PLANTED, "versions": {"torch": PLANTED}}
    text = written(tmp_path, planted, shown, claims=[CLAIM | names], provenance=[record], **tables)
    page = Page(text)
    assert "b" not in page.tags
    assert len(page.texts["script"]) == 1
    row = next(row for row in page.rows if row[0] == "supported")
    assert (row[1], row[3], row[-1]) == (PLANTED, PLANTED, PLANTED)
    assert [PLANTED] in page.rows
    assert page.rows.count([PLANTED]) == 2  # header and cell
    assert f"git commit {PLANTED}; torch {PLANTED}" in page.texts["p"]


def test_numerics_are_shown_and_stages_that_differ_in_them_are_warned_of(
    tmp_path, settings, figures
):
    page = Page(written(tmp_path, settings, figures))
    assert "Warnings" not in page.texts["h2"]
    wanted = ["cpu", "float32", "False", "not recorded", "not recorded", "AVX2", "1", "1", "sft"]
    assert wanted in page.rows
    cuda = RECORD | {"stage": "pretrain", "device": "cuda:0", "device_name": "a GPU"}
    half = RECORD | {"numerics": RECORD["numerics"] | {"precision": "bfloat16"}}
    mixed = Page(written(tmp_path, settings, figures, provenance=[RECORD, RECORD, cuda, half]))
    assert mixed.texts["h2"][1] == "Warnings"
    lines = [text for text in mixed.texts["p"] if "differ" in text]
    assert lines == [
        "Stages of this run differ in device class (jobs: 3 cpu, 1 cuda). See How it was run.",
        "Stages of this run differ in precision (jobs: 3 float32, 1 bfloat16). See How it was run.",
    ]
    assert list(numerics_of([RECORD, RECORD, cuda, half])["jobs"]) == [2, 1, 1]


def test_stages_of_different_library_versions_are_warned_of(tmp_path, settings, figures):
    """Of libraries that a model's numbers depend on; all versions are shown."""
    versions = {"torch": "2.13.0", "transformers": "5.1.0", "trl": "1.0", "snakemake": "9.1"}
    old = RECORD | {"versions": versions}
    new = RECORD | {"versions": versions | {"trl": "1.1", "snakemake": "9.2"}}
    plain = Page(written(tmp_path, settings, figures, provenance=[old, old]))
    assert "Warnings" not in plain.texts["h2"]
    page = Page(written(tmp_path, settings, figures, provenance=[old, new, new]))
    assert page.texts["h2"][1] == "Warnings"
    assert [text for text in page.texts["p"] if "differ" in text] == [
        "Stages of this run differ in the version of trl (jobs: 1 1.0, 2 1.1). See How it was run."
    ]
    shown = "torch 2.13.0, transformers 5.1.0, trl 1.0 and 1.1, snakemake 9.1 and 9.2"
    assert f"git commit abc; {shown}" in page.texts["p"]
    del new["versions"]["torch"]
    unknown = Page(written(tmp_path, settings, figures, provenance=[old, new]))
    (line, _) = [text for text in unknown.texts["p"] if "differ" in text]
    assert "the version of torch (jobs: 1 2.13.0, 1 not recorded)" in line


@pytest.mark.parametrize("count", [0, 2])
def test_warnings_of_the_run_come_before_its_verdicts(tmp_path, settings, figures, count):
    rows = pd.DataFrame({"axis": ["many"] * count, "warning": ["ID mass 0.02 after SFT"] * count})
    page = Page(written(tmp_path, settings, figures, warnings=rows))
    assert (page.texts["h2"][1] == "Warnings") == bool(count)
    assert page.rows.count(["many", "ID mass 0.02 after SFT"]) == count


def test_captions_speak_of_the_method_shown_and_of_the_law_where_it_holds():
    for method, label in (("grpo", "GRPO"), ("dapo", "dapo")):
        settings = planted_settings(methods=[method])
        for entry in ENTRIES.values():
            if entry.all_methods:
                continue
            shown = "".join(texts(entry, words_of(settings, 0.5, "many")))
            other = {"GRPO", "dapo"} - {label}
            assert not any(name in shown.replace("GRPO-RM", "") for name in other)
    settings = planted_settings()
    title, caption = texts(ENTRIES["gain"], words_of(settings, 0.25))
    assert title == "Gain by GRPO against starting mass"
    assert "law of KL-regularised RL" in caption
    assert "0.25" in caption
    assert "law" not in texts(ENTRIES["gain"], words_of(settings, 0.0))[1]


def test_captions_say_how_many_prompts_and_seeds_and_what_the_bars_are():
    settings = planted_settings()
    _, caption = texts(ENTRIES["axis"], words_of(settings, 0.0, "many"))
    for part in (
        "40 ID and 40 OOD",
        "n = 3 seeds: mean over seeds",
        "bars: 95 % t interval over seeds",
    ):
        assert part in caption
    alone = words_of(planted_settings(seeds=[0]), 0.0, "many")
    assert (
        "n = 1 seed: mean over seeds, bars: 95 % interval over prompts (one seed)"
        in texts(ENTRIES["axis"], alone)[1]
    )
    assert "with 0, 1, 3 of their tokens" in texts(ENTRIES["mixing"], alone)[1]


def test_a_word_that_captions_do_not_have_is_an_error():
    from dataclasses import replace

    wrong = replace(ENTRIES["axis"], caption="{{ sedes }} seeds")
    with pytest.raises(jinja2.UndefinedError, match="sedes"):
        texts(wrong, words_of(planted_settings(), 0.0, "many"))


@needs_chromium
def test_report_renders_in_a_browser(tmp_path, settings, figures):
    """The browser, cut off from any network, shows every figure and logs no console message."""
    script = "return [...document.images].map((image) => image.complete && image.naturalWidth)"
    widths, console = seen(tmp_path, written(tmp_path, settings, figures), script)
    assert widths == [300 + number for number in range(len(figures))]
    assert console == ""
