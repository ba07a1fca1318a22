"""Questions and answers as the tokenizer of a base model writes them.

With a chat template a question is a user's message, followed by the beginning of the assistant's
turn. Without one it stands between `Question: ` and `Answer:`. A worked solution ends in a line
`#### answer`, as in GSM8K (arXiv 2110.14168). Completions end with the tokenizer's `eos` token.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from grpo_origin.config.fields import ConfigError
from grpo_origin.tasks.domain import Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUNDLE = '{"save_pretrained": '  # how a file of all that save_pretrained writes begins
FINAL = "\n#### "  # before the answer to which a worked solution comes
QUESTION = "{question}"
FRAME = f"Question: {QUESTION}\nAnswer:"


class GivenText:
    """A saved tokenizer's way of writing; completions are worked solutions if `worked`.

    It lies in the base's folder or in a file of the data that `save` wrote.
    """

    def __init__(self, place: str | Path, worked: bool) -> None:
        self.place, self.worked = Path(place), worked

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer as a Hugging Face object; it pads on the left."""
        return self.opened()

    def opened(self) -> PreTrainedTokenizerBase:
        """The same, anew. Raises ConfigError for a folder, ValueError for a file."""
        if self.place.is_dir():
            return open_tokenizer(self.place)
        files = json.loads(self.place.read_text(encoding="utf-8"))["save_pretrained"]
        with TemporaryDirectory() as folder:
            for name, content in files.items():
                Path(folder, name).write_bytes(b64decode(content))
            return open_tokenizer(folder)

    def save(self, file: str | Path) -> None:
        """Write it as one file, whatever it consists of."""
        with TemporaryDirectory() as folder:
            self.tokenizer.save_pretrained(folder)
            parts = {p.name: b64encode(p.read_bytes()).decode() for p in Path(folder).iterdir()}
        text = json.dumps({"save_pretrained": dict(sorted(parts.items()))})
        Path(file).write_text(text, encoding="utf-8")

    @cached_property
    def tokens(self) -> Tokens:
        """Its tokens, no marker among them but the end; where it has no `pad`, that is `eos`."""
        names = self.tokenizer.convert_ids_to_tokens([*range(len(self.tokenizer))])
        shown = tuple(str(name).replace("Ġ", "␣").replace("▁", "␣") for name in names)
        bos, eos, pad = (
            getattr(self.tokenizer, f"{end}_token_id") for end in ("bos", "eos", "pad")
        )
        return Tokens(shown, eos if bos is None else bos, eos, eos if pad is None else pad)

    @cached_property
    def _frame(self) -> tuple[list[int], str, str, str]:
        """What a prompt begins with, stands before and behind a question, and before a completion.

        It begins with `bos` by the chat template or by the tokenizer's own habit; as an id, since
        some tokenizers read the text behind it back with a space that was not there.
        """
        tokenizer, bos = self.tokenizer, self.tokenizer.bos_token or ""
        if tokenizer.chat_template:
            message, lead = [{"role": "user", "content": QUESTION}], ""
            how: dict[str, Any] = {"add_generation_prompt": True, "tokenize": False}
            text = str(tokenizer.apply_chat_template(message, **how))
            begins = bool(bos) and text.startswith(bos)
        else:
            text, lead = FRAME, " "
            begins = bool(bos) and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
        before, asked, behind = text.partition(QUESTION)
        if not asked:
            raise ConfigError("the chat template of pretrain.base leaves a user's message out")
        start = [tokenizer.bos_token_id] if begins else []
        return start, before.removeprefix(bos), behind, lead

    def prompts(self, questions: Sequence[str]) -> list[list[int]]:
        """Token ids of questions."""
        start, before, behind, _ = self._frame
        texts = [before + question + behind for question in questions]
        return [[*start, *ids] for ids in self._encoded(texts)]

    def completions(self, answers: Sequence[str], worked: Sequence[str]) -> list[list[int]]:
        """Token ids of answers, behind their worked solutions if these are asked for."""
        lead = self._frame[3]
        texts = [*answers]
        if self.worked:
            texts = [text + FINAL + answer for text, answer in zip(worked, answers, strict=True)]
        return [[*ids, self.tokens.eos] for ids in self._encoded([lead + text for text in texts])]

    def check(self, question: str, answer: str, worked: str) -> None:
        """Raise ConfigError unless a problem can be read back from its tokens."""
        (prompt,), (completion,) = self.prompts([question]), self.completions([answer], [worked])
        read = self.question(prompt), self.answer(completion)
        for text, back in zip((question, answer.strip()), read, strict=True):
            if back != text:
                raise ConfigError(
                    f"the tokenizer of pretrain.base reads {text!r} back as {back!r}: it loses "
                    "text, so nothing can be verified"
                )

    def question(self, prompt: Sequence[int]) -> str:
        """The question that a prompt (token ids) asks."""
        start, before, behind, _ = self._frame
        text = self._decoded(prompt[len(start) :])
        return text.removeprefix(before).removesuffix(behind)

    def answer(self, completion: Sequence[int]) -> str | None:
        """The final answer that a completion (token ids) gives; None if it gives none."""
        ids = list(completion)
        if self.tokens.eos not in ids:
            return None
        text = self._decoded(ids[: ids.index(self.tokens.eos)])
        _, final, answer = text.rpartition(FINAL.strip())
        if self.worked and not final:
            return None
        return (answer if self.worked else text).strip()

    def _encoded(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )


def is_given(place: str | Path) -> bool:
    """Whether a tokenizer is a base model's: its folder, or a file that `GivenText.save` wrote."""
    if not Path(place).is_file():
        return Path(place).is_dir()
    with open(place, "rb") as file:
        return file.read(len(BUNDLE)) == BUNDLE.encode()


def open_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """A tokenizer that was saved in a folder.

    Raises ConfigError, one line, if it can't be opened or has no token that ends a text.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, padding_side="left", local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{folder}: its tokenizer can't be opened ({reason})") from None
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{folder}: its tokenizer has no token that ends a text (eos_token)")
    return tokenizer
