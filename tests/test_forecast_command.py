"""`grpo-origin forecast`: its lines, its options, the files it writes, its documentation."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from grpo_origin.cli import main
from grpo_origin.forecast import page
from grpo_origin.forecast.passes import read_passes
from helpers import REPO, environment

NUMBER = re.compile(r"\d[\d,]*\.?\d*")
TABLE = "prompt,samples,correct\none,8,0\ntwo,8,3\nthree,8,8\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(
        tmp_path / "passes.csv", TABLE + "four,8,1\nfive,8,6\nnever,2000,0\nalways,2000,2000\n"
    )


def test_every_number_says_what_it_rests_on(table, capsys):
    main(["forecast", "passes.csv", "--steps", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"exact", "posterior", "model"}
    assert lines[0] == (
        "exact      7 prompts, 4,040 samples, 50 % right; never right: 2 prompts, always: 2 prompts"
    )
    assert 8 <= len(lines) <= 12


def test_where_it_ends_is_a_model_with_its_interval_and_what_that_was_fitted_on(table, capsys):
    main(["forecast", "passes.csv", "--steps", "3"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.match(
        r"model +mean pass rate after the budget: \S+ % \(80 %: \S+ % to \S+ %\), all prompts as "
        r"one task, by a model fitted on \d+ RL runs of small string models",
        last,
    )
    assert "steps were fewer" not in last
    main(["forecast", "passes.csv", "--steps", "61"])
    assert "its 60 steps were fewer" in capsys.readouterr().out.splitlines()[-1]


def test_a_task_without_success_does_not_rise_with_another(tmp_path, monkeypatch, capsys):
    """Half of the prompts are of a task that is never right: one task apart, or all as one."""
    monkeypatch.chdir(tmp_path)
    rows = [f"easy {i},64,{40 + i % 20},a" for i in range(40)]
    rows += [f"hard {i},64,0,b" for i in range(40)]
    ends = []
    for header in ("prompt,samples,correct,task", "prompt,samples,correct,other"):
        write(tmp_path / "passes.csv", "\n".join([header, *rows]))
        main(["forecast", "passes.csv"])
        (last,) = [x for x in capsys.readouterr().out.splitlines() if "after the budget" in x]
        ends.append(float(NUMBER.findall(last)[0]))
        assert ("2 tasks apart" in last) == header.endswith("task")
    assert ends[0] < 60 < ends[1]


def test_a_prompt_of_two_tasks_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "passes.csv", "prompt,samples,correct,task\nx,8,1,a\nx,8,1,b\n")
    with pytest.raises(SystemExit, match=r"passes.csv, row 3: task is another than"):
        main(["forecast", "passes.csv"])


def test_beta_0_has_no_ceiling(table, capsys):
    main(["forecast", "passes.csv", "--beta", "0"])
    assert "beta 0: no KL term, so no ceiling" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--group-size", "1"], "--group-size: must be at least 2, not 1"),
        (["--steps", "0"], "--steps: must be at least 1, not 0"),
        (["--prompts-per-step", "0"], "--prompts-per-step: must be at least 1, not 0"),
        (["--beta", "-1"], "--beta: must be positive, or 0 for no KL term, not -1"),
        (["--beta", "nan"], "--beta: must be positive"),
        (["--right-above", "inf"], "--right-above: must be a number"),
        (["--dead-below", "2"], "--dead-below: must lie in [0, 1], not 2"),
        (["--out", "forecast.pdf"], "--out forecast.pdf: must end in .html (page) or .png"),
        (["--drop", "./passes.csv"], "--drop ./passes.csv: named already; write to another file"),
        (["--out", "a.html", "--drop", "a.html"], "--drop a.html: named already"),
        (["none.csv"], "none.csv: No such file"),
    ],
)
def test_a_mistake_is_one_line(table, capsys, options, words):
    with pytest.raises(SystemExit) as error:
        main(["forecast", "passes.csv", *options])
    message = str(error.value.code)
    assert message.startswith(f"error: {words}")
    assert len(message.splitlines()) == 1
    assert not capsys.readouterr().out


def test_dead_prompts_are_written_and_can_be_read_again(table):
    main(["forecast", "passes.csv", "--drop", "dead.csv"])
    rows = list(csv.DictReader(table.with_name("dead.csv").open()))
    assert [(row["prompt"], row["dead_at"]) for row in rows] == [("never", "0"), ("always", "1")]
    assert all(float(row["chance_of_contrast"]) < 0.05 for row in rows)
    again = read_passes([table.with_name("dead.csv")])
    assert again.prompts == ("never", "always")
    assert again.correct.tolist() == [0, 2000]


def test_the_page_holds_all_lines_and_needs_nothing_else(table, capsys):
    main(["forecast", "passes.csv", "--out", "forecast.html"])
    text = table.with_name("forecast.html").read_text()
    first = capsys.readouterr().out.splitlines()[0].removeprefix("exact").strip()
    assert first in text
    assert re.search(r'<img alt="Four panels[^"]+" src="data:image/png;base64,iVBOR', text)
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert all(paragraph.split(":")[0] in text for paragraph in page.ASSUMED)


def test_names_from_files_are_escaped_in_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "<b>.csv", TABLE + "one,8,1\n")
    main(["forecast", "<b>.csv", "--out", "forecast.html"])
    text = (tmp_path / "forecast.html").read_text()
    assert "&lt;b&gt;.csv: 1 row repeats" in text
    assert "<b>" not in text


def test_the_figure_alone(table):
    main(["forecast", "passes.csv", "--out", "forecast.png"])
    assert table.with_name("forecast.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("option", "name"), [("--out", "page.html"), ("--drop", "dead.csv")])
def test_a_failed_write_leaves_what_was_there(table, monkeypatch, option, name):
    path = write(table.with_name(name), "before")

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("grpo_origin.jobs.files.os.replace", full)
    with pytest.raises(SystemExit, match="No space left"):
        main(["forecast", "passes.csv", option, name])
    assert path.read_text() == "before"
    assert {x.name for x in table.parent.iterdir()} == {"passes.csv", name}


def test_it_runs_outside_any_checkout_and_imports_no_torch(table):
    code = (
        "import sys; from grpo_origin.cli import main\n"
        "main(['forecast', 'passes.csv', '--out', 'forecast.html', '--drop', 'dead.csv'])\n"
        "print(sorted({'torch', 'transformers', 'trl', 'snakemake'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=table.parent,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"
    assert (table.parent / "forecast.html").is_file()


def test_the_example_of_the_documentation_runs_and_is_what_it_prints(tmp_path):
    text = (REPO / "docs" / "forecast.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (console,) = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    command, _, shown = console.partition("\n")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), check=True)
    arguments = command.removeprefix("$ grpo-origin ").split()
    result = subprocess.run(
        [sys.executable, "-m", "grpo_origin", *arguments],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    words, expected = result.stdout.split(), shown.split()
    assert [NUMBER.sub("#", x) for x in words] == [NUMBER.sub("#", x) for x in expected]
    for word, there in zip(words, expected, strict=True):  # another processor rounds otherwise
        found, numbers = (
            [float(x.replace(",", "")) for x in NUMBER.findall(y)] for y in (word, there)
        )
        assert found == pytest.approx(numbers, rel=0.02)
