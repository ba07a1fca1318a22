"""Domains whose problems are texts: what such a domain inherits (docs/tasks.md).

A subclass gives the n-th problem of a task, a question with its answer, and says whether an answer
is right. Here are the rest: the split by a hash of the question, a byte-level BPE tokenizer trained
on the axis's own train problems, and how questions and answers are written as tokens; with that of
a base model, as `given` says.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.notation import SPLITS, AnyTask, DatasetTask, shares
from grpo_origin.tasks.domain import Domain, Padded, Problems, Rendered, Tokens
from grpo_origin.tasks.given import GivenText, is_given
from grpo_origin.tasks.tokenizer import ANSWER, BOS, EOS, PAD, SOLVE, SPECIAL, THINK
from grpo_origin.tasks.world import generator

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a job has one core

NUMBERS = 2**30  # problems of a task that can be asked for by number; many are the same text
TOKENIZER_TEXTS = 8000  # train problems a tokenizer is trained on: merges of 512 tokens settle
CHECKED = 2000  # problems of each task that a configuration is checked on: 0.1 s
MEASURED = 512  # problems of each task whose lengths are measured
FRUITLESS = 2000  # problems in a row without a new one after which a side counts as used up


class Problem(NamedTuple):
    """A question, its reference answer and, where there is one, the worked solution before it."""

    question: str
    answer: str
    worked: str = ""


class TextDomain(Domain):
    """Problems that are texts; those of a task are numbered from 0, and the numbers are kept."""

    trains_tokenizer = True
    ragged = True
    columns = ("problem",)

    # --- what a domain gives

    @abstractmethod
    def problem(self, task: DatasetTask, number: int) -> Problem:
        """The problem of a number, always the same. Raises ConfigError for an unknown task."""

    def accepts(self, task: DatasetTask, number: int, answer: str) -> bool:
        """Whether an answer to the problem of a number is right; what it raises counts as wrong."""
        return answer == self.problem(task, number).answer

    # --- what is asked

    def check(self) -> None:
        for split in SPLITS:
            for task in self.axis.tasks(split):
                if not isinstance(task, DatasetTask):
                    raise ConfigError(
                        f"{split}: '{task}' is not a task of domain {self.axis.domain}: write "
                        "{dataset: name, option: value}"
                    )
                for number in range(CHECKED):
                    self._check_problem(split, task, number)

    def _check_problem(self, split: str, task: DatasetTask, number: int) -> None:
        """Raise ConfigError unless a problem has what is asked for and accepts its own answer."""
        try:
            problem = self.problem(task, number)
        except ConfigError as error:
            raise ConfigError(f"{split}: {error}") from None
        except Exception as error:  # a generator may raise anything
            raise ConfigError(
                f"{split}: task '{task}' fails at problem {number}: {error!r}"
            ) from None
        shown = f"{split}: task '{task}', of which {problem.question!r} is a problem,"
        if self.axis.completions == "worked" and not problem.worked:
            raise ConfigError(f"{shown} has no worked solutions: write completions: direct")
        if not self._right(task, number, problem.answer):
            raise ConfigError(f"{shown} has a verifier that rejects its answer {problem.answer!r}")
        if self._given:
            self._given.check(problem.question, problem.answer, problem.worked)

    def lengths(self, task: AnyTask) -> tuple[int, int]:
        rng = generator(self.seed, "lengths", str(task))
        rendered = self.rendered(task, self.draw(task, rng, MEASURED))
        return int(rendered.prompts.lengths.max()), int(rendered.completions.lengths.max())

    def draw(self, task: AnyTask, rng: np.random.Generator, count: int) -> Problems:
        drawn: list[np.ndarray] = [np.empty(0, np.int64)]
        missing = count
        while missing > 0:
            more = int(missing / (1 - self.world_settings.test_fraction) * 1.01) + 16
            numbers = rng.integers(0, NUMBERS, more)
            train = [not self._is_test(self._of(task, n).question) for n in numbers]
            drawn.append(numbers[np.array(train)][:missing])
            missing -= len(drawn[-1])
        return np.concatenate(drawn)

    def distinct(
        self,
        task: AnyTask,
        rng: np.random.Generator,
        count: int,
        test: bool,
        avoid: Problems | None = None,
    ) -> Problems:
        last = np.empty(0, np.int64) if avoid is None else avoid
        seen = {self._of(task, n).question for n in last}
        chosen = self._search(task, rng, count, test, seen)
        problems = np.concatenate([chosen, last])[:count].astype(np.int64)
        if len(problems) < count:
            raise ConfigError(
                f"task '{task}' has too few problems: {count} are needed, {len(problems)} were "
                "found"
            )
        return problems

    def available(self, task: AnyTask, test: bool, wanted: int) -> int:
        return len(
            self._search(task, generator(self.seed, "count", str(task)), wanted, test, set())
        )

    def _search(
        self, task: AnyTask, rng: np.random.Generator, count: int, test: bool, seen: set[str]
    ) -> np.ndarray:
        """Up to `count` numbers of different problems of a side; adds their questions to `seen`."""
        found: list[int] = []
        fruitless = 0
        while len(found) < count and fruitless < FRUITLESS:
            number = int(rng.integers(0, NUMBERS))
            question = self._of(task, number).question
            new = question not in seen and self._is_test(question) == test
            fruitless = 0 if new else fruitless + 1
            if new:
                seen.add(question)
                found.append(number)
        return np.array(found, np.int64)

    def rendered(self, task: AnyTask, problems: Problems) -> Rendered:
        of_task = [self._of(task, number) for number in problems]
        beside = {"problem": np.asarray(problems)}
        if self._given:
            questions, gold, solutions = ([p[i] for p in of_task] for i in range(3))
            completions = self._given.completions(gold, solutions)
            return Rendered(
                Padded.of(self._given.prompts(questions)), Padded.of(completions), beside
            )
        prompts = [[BOS, *ids, SOLVE] for ids in self._encoded(p.question for p in of_task)]
        answers = [[ANSWER, *ids, EOS] for ids in self._encoded(p.answer for p in of_task)]
        if self.axis.completions == "worked":
            worked = self._encoded(p.worked for p in of_task)
            answers = [[THINK, *ids, *end] for ids, end in zip(worked, answers, strict=True)]
        return Rendered(Padded.of(prompts), Padded.of(answers), beside)

    def count_test(self, task: str, prompts: Padded) -> int:
        rows = zip(prompts.ids, prompts.lengths, strict=True)
        if self._given:
            return sum(self._is_test(self._given.question(ids[:n].tolist())) for ids, n in rows)
        # All but <bos> and <solve>; without the special tokens that would be decoded as nothing.
        texts = self._core.decode_batch([ids[1 : n - 1].tolist() for ids, n in rows])
        return sum(map(self._is_test, texts))

    def _is_test(self, question: str) -> bool:
        """The side of a question, names and numbers included: by its text alone, everywhere."""
        digest = hashlib.blake2b(question.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.world_settings.test_fraction * 2**64

    def _of(self, task: AnyTask, number: int | np.integer[Any]) -> Problem:
        assert isinstance(task, DatasetTask)  # as checked before any job
        return self.problem(task, int(number))

    # --- what is right

    @property
    def unique(self) -> bool:
        return self.axis.completions == "direct"

    def score(
        self,
        kind: str,
        task: str,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        columns: Mapping[str, Sequence[Any]],
    ) -> np.ndarray:
        of, numbers = self._named(task), np.array(columns["problem"])
        if kind == "exact":
            gold = self.rendered(of, numbers).completions
            rows = zip(completions, gold.ids, gold.lengths, strict=True)
            return np.array([list(ids) == right[:n].tolist() for ids, right, n in rows], float)
        answers = map(self.answer, completions)
        pairs = zip(numbers, answers, strict=True)
        return np.array([a is not None and self._right(of, int(n), a) for n, a in pairs], float)

    def answer(self, completion: Sequence[int]) -> str | None:
        """The final answer that a completion (token list) gives; None if it gives none."""
        if self._given:
            return self._given.answer(completion)
        ids = list(completion)
        if ANSWER not in ids or ids[-1] != EOS:
            return None
        return self._core.decode(ids[ids.index(ANSWER) + 1 : -1], skip_special_tokens=False)

    def _right(self, task: DatasetTask, number: int, answer: str) -> bool:
        """Whether the verifier accepts an answer; no for one that it fails on, which is said."""
        try:
            with _limited():
                return bool(self.accepts(task, number, answer))
        except Exception as error:  # a verifier may raise anything
            print(f"{task}: {error!r} on the answer {answer!r}, counted as wrong", flush=True)
            return False

    def _named(self, name: str) -> DatasetTask:
        tasks = (task for split in SPLITS for task in self.axis.tasks(split))
        return next(t for t in tasks if isinstance(t, DatasetTask) and str(t) == name)

    # --- tokens

    @property
    def vocabulary_size(self) -> int:
        return self.axis.vocabulary

    @cached_property
    def _given(self) -> GivenText | None:
        """How texts are written with a base model's tokenizer, where that is the tokenizer."""
        place = self.tokenizer_file
        if place is None or not is_given(place):
            return None
        return GivenText(place, worked=self.axis.completions == "worked")

    @cached_property
    def tokens(self) -> Tokens:
        if self._given:
            return self._given.tokens
        names = tuple(map(self._shown, range(self._core.get_vocab_size())))
        return Tokens(names, BOS, EOS, PAD, (THINK, ANSWER))

    def _shown(self, token: int) -> str:
        """A token as text that shows its blanks; bytes that are no text by themselves by name."""
        text = self._core.decode([token], skip_special_tokens=False)
        known = text if "\ufffd" not in text else self._core.id_to_token(token) or ""
        return known.replace(" ", "␣").replace("\n", "⏎")

    def build_tokenizer(self) -> PreTrainedTokenizerBase:
        if self._given:
            return self._given.opened()
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(
            tokenizer_object=self._core,
            bos_token="<bos>",
            eos_token="<eos>",
            pad_token="<pad>",
            unk_token="<unk>",
            padding_side="left",
            clean_up_tokenization_spaces=False,
        )

    def make_tokenizer(self, file: str | Path) -> None:
        if self._given:
            self._given.save(file)
        else:
            self._trained().save(str(file))

    @cached_property
    def _core(self) -> Tokenizer:
        """The tokenizer of the data or, before there are any, the one that they will get."""
        from tokenizers import Tokenizer

        if self.tokenizer_file is None:
            core = self._trained()
        else:
            try:
                core = Tokenizer.from_file(str(self.tokenizer_file))
            except Exception as error:  # the library raises nothing more special
                raise ValueError(f"not a readable tokenizer ({error})") from None
        core.encode_special_tokens = True  # a question that says <eos> means these five characters
        return core

    def _trained(self) -> Tokenizer:
        """Byte-level BPE of train problems of all tasks in equal shares, each digit by itself."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
        )
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.axis.vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        core.train_from_iterator(self._texts(), trainer)
        return core

    def _texts(self) -> Iterator[str]:
        tasks = [task for split in SPLITS for task in self.axis.tasks(split)]
        rng = generator(self.seed, "tokenizer")
        for task, share in zip(tasks, shares(TOKENIZER_TEXTS, len(tasks)), strict=True):
            for number in self.draw(task, rng, share):
                problem = self._of(task, number)
                worked = [problem.worked] if self.axis.completions == "worked" else []
                yield from [problem.question, *worked, problem.answer]

    def _encoded(self, texts: Iterable[str]) -> list[list[int]]:
        encodings = self._core.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


VERIFIER_SECONDS = 5.0


@contextmanager
def _limited() -> Iterator[None]:
    """Raise TimeoutError in a block that takes longer; without effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(*_: Any) -> None:
        raise TimeoutError(f"took longer than {VERIFIER_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, VERIFIER_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
