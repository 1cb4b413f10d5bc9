"""How do errors of the calls below speak of arguments? In the words of the function called."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

#: What attnext refuses a call with (NotImplementedError is a RuntimeError).
REFUSALS = (ValueError, TypeError, RuntimeError)


@contextmanager
def speaking_of(function: str, names: Mapping[str, str]) -> Iterator[None]:
    """Errors raised inside name `function`, and arguments by what `names` maps them to."""
    try:
        yield
    except REFUSALS as error:
        reword(error, function, names)
        raise


def reword(error: Exception, function: str, names: Mapping[str, str]) -> None:
    """Makes the message of `error` one of `function`'s own."""
    message = in_words_of(function, names, str(error))
    if message != str(error):
        error.args = (message,)


def in_words_of(function: str, names: Mapping[str, str], message: str) -> str:
    """``"attention: k must .."`` as ``"function: names[k] must .."``; foreign messages as is."""
    text, is_ours = re.subn("^(attention|attention_backward|explain): ", "", message)
    if not is_ours:
        return message
    if not names:
        return f"{function}: {text}"
    words = "|".join(re.escape(name) for name in names)
    text = re.sub(rf"(?<![\w.])({words})(?!\w)", lambda match: names[match[0]], text)
    return f"{function}: {text}"
