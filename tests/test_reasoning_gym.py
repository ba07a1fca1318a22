"""Tasks of reasoning-gym, where it is installed (`make text`)."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: make text")

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.load import read_settings
from grpo_origin.config.notation import DatasetTask
from grpo_origin.config.stages import AxisSettings, WorldSettings
from grpo_origin.tasks.domains.reasoning_gym import ReasoningGym
from helpers import REPO

SUMS = {"dataset": "chain_sum", "min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1}
WORDS = {"dataset": "gsm_symbolic", "templates": [0, 3]}
USED = ("text", "word-problems", "text-gpu")  # configurations


def domain_of(task: dict, completions: str = "direct") -> tuple[ReasoningGym, DatasetTask]:
    other = {"dataset": "spell_backward"}
    axis = AxisSettings(id=[task], ood=[other], completions=completions, vocabulary=320)
    domain = ReasoningGym(WorldSettings(), axis, 0)
    spec = axis.id[0]
    assert isinstance(spec, DatasetTask)
    return domain, spec


def test_running_totals_are_worked_out_before_the_answer():
    domain, task = domain_of(SUMS, "worked")
    for number in range(50):
        problem = domain.problem(task, number)
        sums = problem.question.split(": ")[1].removesuffix(" =").split()
        first, second = int(sums[0]), int(sums[0]) + int(sums[1] + sums[2])
        assert problem.worked == f"{first} {second}"
        assert int(problem.answer) == second + int(sums[3] + sums[4])


def test_templates_are_the_named_ones_and_solutions_end_before_the_answer():
    domain, task = domain_of(WORDS, "worked")
    problems = [domain.problem(task, number) for number in range(40)]
    assert all("peel" in problem.question for problem in problems[::2])
    assert not any("peel" in problem.question for problem in problems[1::2])
    assert all(problem.worked and "####" not in problem.worked for problem in problems)
    assert len({problem.question for problem in problems}) > 35


def test_the_verifier_judges_the_final_answer():
    domain, task = domain_of(SUMS)
    answer = domain.problem(task, 5).answer
    assert domain.accepts(task, 5, answer)
    assert domain.accepts(task, 5, f"{answer}.0")  # reasoning-gym tolerates decimals
    for wrong in (f"{answer}1", "", "seven", "9" * 5000):
        assert not domain.accepts(task, 5, wrong)


def test_tokens_give_the_question_back():
    domain, task = domain_of(WORDS, "worked")
    drawn = domain.draw(task, np.random.default_rng(0), 20)
    rendered = domain.rendered(task, drawn)
    rows = zip(rendered.prompts.ids, rendered.prompts.lengths, drawn, strict=True)
    for ids, length, number in rows:
        text = domain._core.decode(ids[1 : length - 1].tolist())
        assert text == domain.problem(task, int(number)).question
    rows = zip(rendered.completions.ids, rendered.completions.lengths, drawn, strict=True)
    for ids, length, number in rows:
        assert domain.answer(ids[:length].tolist()) == domain.problem(task, int(number)).answer
    assert domain.count_test(str(task), rendered.prompts) == 0


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"dataset": "chain_sums"}, "unknown data set 'chain_sums', did you mean 'chain_sum'"),
        (SUMS | {"max_term": 3}, "has no option 'max_term', did you mean 'max_terms'"),
        (SUMS | {"max_terms": 1}, "'chain_sum' refuses these options: max_terms must be >="),
        (SUMS | {"seed": 3}, "has no option 'seed'"),
        (WORDS | {"templates": [0, 32]}, "has no template 32"),
        (WORDS | {"templates": 3}, "templates: write a list of numbers, not 3"),
        ({"dataset": "graph_color"}, "has no reference answers"),
        ({"dataset": "countdown"}, "its verifier may run what models write"),
    ],
)
def test_what_a_data_set_cannot_do_is_refused(task, expected):
    domain, _ = domain_of(task)
    with pytest.raises(ConfigError, match=expected) as error:
        domain.check()
    assert "\n" not in str(error.value)


def test_no_solution_where_one_is_asked_for():
    domain, _ = domain_of({"dataset": "spell_backward", "min_word_len": 4}, "worked")
    with pytest.raises(ConfigError, match=r"'Spell .*' is a problem, has no worked solutions"):
        domain.check()


@pytest.mark.slow
@pytest.mark.parametrize("name", USED)
def test_ten_thousand_problems_of_every_used_task(name):
    """References are accepted, the sides of the split share nothing; prints the rate."""
    settings = read_settings(REPO / "config" / "config.yaml", REPO / "config" / f"{name}.yaml")
    for axis in settings.axes.values():
        domain = ReasoningGym(settings.world, axis, 0)
        for task in (*axis.id, *axis.ood):
            started = time.process_time()
            problems = [domain.problem(task, number) for number in range(10_000)]
            rate = 10_000 / (time.process_time() - started)
            tested = [domain._is_test(problem.question) for problem in problems]
            assert 0.05 < np.mean(tested) < 0.15
            rejected = [n for n, p in enumerate(problems) if not domain.accepts(task, n, p.answer)]
            assert not rejected
            train = domain.draw(task, np.random.default_rng(1), 10_000)
            test = domain.distinct(task, np.random.default_rng(2), 100, test=True)
            trained_on = {domain.problem(task, int(number)).question for number in train}
            assert not trained_on & {domain.problem(task, int(n)).question for n in test}
            print(f"{task}: {rate:,.0f} problems/s, {len(trained_on)} of 10,000 are different")
