"""Worlds and tasks: what holds for every string, node count and seed, against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from grpo_origin.config.load import read_settings
from grpo_origin.config.notation import TaskSpec
from grpo_origin.tasks.domain import find
from grpo_origin.tasks.split import is_test
from grpo_origin.tasks.task import OPERATIONS, Task
from grpo_origin.tasks.tokenizer import Vocabulary
from grpo_origin.tasks.world import World, generator
from helpers import REPO

# Made with an independent splitmix64.
FIXED_SPLIT = [1, 4, 6, 10, 11, 13, 14, 17, 19, 20, 21, 23, 24, 25]
NAMES = st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=4)


def decode(vocabulary: Vocabulary, ids) -> str:
    return " ".join(vocabulary.tokens[i] for i in ids)


@st.composite
def cases(draw) -> tuple[Task, np.ndarray]:
    """A task in some world and one start string in the task's alphabet, shape (1, length)."""
    world = World(draw(st.integers(2, 40)), draw(st.integers(0, 5)))
    length = draw(st.integers(1, 6))
    task = Task(
        TaskSpec(operations=draw(NAMES), length=length, alphabet=draw(st.sampled_from("AB"))), world
    )
    base = draw(st.lists(st.integers(0, world.nodes - 1), min_size=length, max_size=length))
    return task, task.in_alphabet(np.array([base], dtype=np.int16))


@given(st.integers(2, 300), st.integers(0, 100))
def test_a_world_is_a_single_cycle_in_both_alphabets(nodes, seed):
    successor = World(nodes, seed).successor
    for first in (0, nodes):
        seen, node = set(), first
        while node not in seen:
            seen.add(node)
            node = int(successor[node])
        assert node == first
        assert seen == set(range(first, first + nodes))


def test_a_world_of_a_jobs_params_is_that_of_its_settings():
    """A job's seed is text, and its settings hold more than the graph needs."""
    assert World.of({"nodes": 8, "test_fraction": 0.2}, "3") == World(8, 3)
    with pytest.raises(ValidationError, match="nodes"):
        World.of({"nodes": 1}, "3")


@given(st.integers(2, 300), st.integers(0, 100))
def test_the_alphabets_are_isomorphic(nodes, seed):
    world = World(nodes, seed)
    elements = np.arange(2 * nodes)
    assert (world.successor[world.twin(elements)] == world.twin(world.successor[elements])).all()
    assert (world.twin(world.twin(elements)) == elements).all()
    assert (world.twin(elements) != elements).all()


def test_seeds_give_different_worlds_and_the_same_seed_the_same():
    worlds = [tuple(World(26, seed).successor) for seed in range(20)]
    assert len(set(worlds)) == 20
    assert worlds[3] == tuple(World(26, 3).successor)


def test_the_order_of_the_cycle_is_random():
    offsets = {int(World(26, seed).successor[0]) for seed in range(50)}
    assert len(offsets) > 15


@given(cases())
def test_shift_length_times_is_identity(case):
    task, start = case
    state = start
    for i in range(task.spec.length):
        if i and len(set(start[0].tolist())) == task.spec.length:
            assert (state != start).any()
        state = OPERATIONS["shift"](task.world, state)
    assert (state == start).all()


@given(cases())
def test_trav_nodes_times_is_identity_and_not_before(case):
    task, start = case
    state = start
    for i in range(task.world.nodes):
        assert i == 0 or (state != start).all()
        state = OPERATIONS["trav"](task.world, state)
    assert (state == start).all()


@given(cases())
def test_the_trace_equals_plain_python_left_to_right(case):
    task, start = case
    state, expected = start[0].tolist(), []
    for name in task.spec.operations:
        state = (
            [int(task.world.successor[x]) for x in state]
            if name == "trav"
            else state[1:] + state[:1]
        )
        expected.append(state)
    assert task.trace(start)[0].tolist() == expected


def test_operations_apply_left_to_right():
    """trav and shift commute: the order shows in the states between, here of the string A B."""
    world = World(26, 0)
    start = np.array([[0, 1]], dtype=np.int16)
    after_a, after_b = world.successor[0], world.successor[1]
    shift_first = Task(TaskSpec.model_validate("shift trav;2;A"), world).trace(start)[0]
    trav_first = Task(TaskSpec.model_validate("trav shift;2;A"), world).trace(start)[0]
    assert shift_first.tolist() == [[1, 0], [after_b, after_a]]
    assert trav_first.tolist() == [[after_a, after_b], [after_b, after_a]]


@given(cases())
def test_the_twin_commutes_with_every_task(case):
    task, start = case
    assert (task.trace(task.world.twin(start)) == task.world.twin(task.trace(start))).all()


@given(cases())
def test_mixed_strings_keep_the_alphabet_of_every_position(case):
    task, start = case
    mixed = start.copy()
    mixed[:, 0] = task.world.twin(mixed[:, 0])
    answer, plain = task.trace(mixed), task.trace(start)
    assert (task.world.base(answer) == task.world.base(plain)).all()


@given(cases())
def test_rendering_round_trips(case):
    task, start = case
    vocabulary = Vocabulary(task.world.nodes)
    prompt = vocabulary.prompts(task, start)
    assert (vocabulary.starts(task, prompt) == start).all()
    assert prompt.shape[1] == task.spec.prompt_tokens
    assert vocabulary.completions(task, start).shape[1] == task.spec.completion_tokens
    words = decode(vocabulary, prompt[0]).split()
    assert words[0] == "<bos>"
    asked = [f"<{name}>" for name in task.spec.operations]
    assert words[-len(asked) - 1 :] == [*asked, "<solve>"]
    answer = decode(vocabulary, vocabulary.completions(task, start)[0]).split("<answer>")[1].split()
    assert answer == [
        *(vocabulary.tokens[x + vocabulary.first_element] for x in task.trace(start)[0, -1]),
        "<eos>",
    ]


def test_the_text_format_of_the_example():
    world = World(26, 0)
    task = Task(TaskSpec.model_validate("trav trav;4;A"), world)
    vocabulary = Vocabulary(26)
    start = np.array([[0, 1, 2, 3]], dtype=np.int16)
    once = ["ABCDEFGHIJKLMNOPQRSTUVWXYZ"[world.successor[i]] for i in range(4)]
    twice = ["ABCDEFGHIJKLMNOPQRSTUVWXYZ"[world.successor[world.successor[i]]] for i in range(4)]
    prompt = decode(vocabulary, vocabulary.prompts(task, start)[0])
    assert prompt == "<bos> A B C D <trav> <trav> <solve>"
    expected = f"<think> {' '.join(once)} <answer> {' '.join(twice)} <eos>"
    assert decode(vocabulary, vocabulary.completions(task, start)[0]) == expected


@pytest.mark.parametrize("name", [path.name for path in sorted((REPO / "config").glob("*.yaml"))])
def test_no_prompt_is_the_beginning_of_another(name):
    """Else a pretrained model is right to go on with more operations, and its mass is capped."""
    settings = read_settings(REPO / "config/config.yaml", REPO / "config" / name)
    strings = [axis for axis in settings.axes.values() if axis.domain == "strings"]
    texts = [axis for axis in settings.axes.values() if axis.domain != "strings"]
    specs = {task for axis in strings for task in (*axis.id, *axis.ood)}
    world, draws = World(settings.world.nodes, 0), np.random.default_rng(0)
    vocabulary = Vocabulary(world.nodes)
    longest = draws.integers(0, world.nodes, (20, max((spec.length for spec in specs), default=0)))
    prompts = []
    for spec in specs:
        task = Task(spec, world)  # strings that begin alike, whatever their length
        prompts += map(tuple, vocabulary.prompts(task, task.in_alphabet(longest[:, : spec.length])))
    assert len(set(prompts)) == len(prompts) == 20 * len(specs)
    assert not _beginnings(prompts) & set(prompts)
    for axis in texts:
        if axis.domain == "reasoning_gym":
            pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: make text")
        domain = find(axis.domain)(settings.world, axis, 0)
        prompts = []
        for task in (*axis.id, *axis.ood):
            rendered = domain.rendered(task, domain.draw(task, draws, 50)).prompts
            rows = zip(rendered.ids, rendered.lengths, strict=True)
            prompts += [tuple(ids[:length].tolist()) for ids, length in rows]
        assert not _beginnings(prompts) & set(prompts)


def _beginnings(prompts):
    return {prompt[:end] for prompt in prompts for end in range(1, len(prompt))}


@given(cases(), st.data())
def test_the_checker_accepts_the_gold_completion_and_nothing_else(case, data):
    task, start = case
    vocabulary = Vocabulary(task.world.nodes)
    prompt, gold = vocabulary.prompts(task, start), vocabulary.completions(task, start)[0].tolist()
    place = data.draw(st.integers(0, len(gold) - 1))
    other = data.draw(
        st.integers(0, len(vocabulary) - 1).filter(lambda token: token != gold[place])
    )
    wrong = [
        [*gold[:place], other, *gold[place + 1 :]],
        [*gold[:place], other, *gold[place:]],
        gold[:-1],
        gold + gold[-1:],
        gold[:place],
        [],
    ]
    assert vocabulary.check(task, prompt, [gold]).tolist() == [True]
    for completion in wrong:
        assert vocabulary.check(task, prompt, [completion]).tolist() == [False]


@pytest.mark.parametrize("length", [2, 4])
def test_the_split_has_the_requested_share(length):
    strings = np.random.default_rng(0).integers(0, 26, (40_000, length)).astype(np.int16)
    strings = np.unique(strings, axis=0)
    for share in (0.1, 0.5):
        sigma = (share * (1 - share) / len(strings)) ** 0.5
        assert abs(is_test(strings, share).mean() - share) < 5 * sigma


def test_the_split_is_the_same_on_every_machine_and_for_ever():
    """A change of the hash would put trained strings into the test sets of old results."""
    strings = np.array(
        [[i, (7 * i) % 26, (3 * i + 1) % 26, i // 2] for i in range(26)], dtype=np.int16
    )
    assert np.flatnonzero(is_test(strings, 0.5)).tolist() == FIXED_SPLIT
    assert (is_test(strings.astype(np.int64), 0.5) == is_test(strings, 0.5)).all()
    assert (is_test(strings[::-1], 0.5) == is_test(strings, 0.5)[::-1]).all()


def test_the_split_depends_on_every_position_and_on_the_length():
    strings = np.random.default_rng(1).integers(0, 26, (2000, 4)).astype(np.int16)
    for position in range(4):
        other = strings.copy()
        other[:, position] = (other[:, position] + 1) % 26
        assert 0.3 < (is_test(other, 0.5) != is_test(strings, 0.5)).mean() < 0.7
    assert 0.3 < (is_test(strings[:, :3], 0.5) != is_test(strings, 0.5)).mean() < 0.7


def test_generators_depend_on_seed_and_purpose_only():
    draws = {
        tuple(generator(seed, *purpose).integers(0, 2**60, 3))
        for seed in (0, 1)
        for purpose in (("a", "b"), ("ab",), ("a",), ())
    }
    assert len(draws) == 8
    assert (generator(4, "x").random(5) == generator(4, "x").random(5)).all()
