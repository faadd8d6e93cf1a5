"""Tokens that a checkpoint states outside of its vocabulary, read as Hugging Face transformers reads them.

    tokenizer_config.json     "added_tokens_decoder": id -> token, and whether blanks belong to it and so on. If it is
                              there, the next two files say nothing
    special_tokens_map.json   special tokens by name; it wins over tokenizer_config.json
    added_tokens.json         token -> id
    tokenizer.json            its own "added_tokens"
    tokenizer_config.json     "…_token": special tokens by name; "extra_special_tokens" or "additional_special_tokens":
                              more of them; neither says an id

A token that the vocabulary has keeps that id. Any other gets the next free one: first those with a stated id, by that,
then the named, then the rest. Where the id so found is not the stated one, transformers takes it without a word, and
the model reads another row of its embeddings; refbert refuses the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refbert.errors import TokenizerError, warn
from refbert.files.reading import shown
from refbert.text.tokenizer_file import library_call
from refbert.text.vocabulary import FILE_ONLY, SPECIALS, read_settings, special_tokens

if TYPE_CHECKING:
    import tokenizers

DECODER, EXTRA, ADDITIONAL = "added_tokens_decoder", "extra_special_tokens", "additional_special_tokens"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
# transformers' order of the names; others that end in "_token" follow.
_NAMED = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))


def read_all_settings(directory: Path) -> dict[str, Any]:
    """tokenizer_config.json with special_tokens_map.json and added_tokens.json, if these count.

    added_tokens.json is under the key "added_tokens". Raises `TokenizerError` for what is not such a file.
    """
    settings = read_settings(directory / "tokenizer_config.json")
    if DECODER in settings:
        return settings
    special = read_settings(directory / "special_tokens_map.json")
    special = {name: _as_special(value) for name, value in special.items()}
    extra = settings.get(EXTRA) or settings.get(ADDITIONAL) or []
    if isinstance(extra, list) and isinstance(special.get(EXTRA), list):
        extra = extra + [token for token in special[EXTRA] if token not in extra]
    added = read_settings(directory / "added_tokens.json")
    return settings | special | ({EXTRA: extra} if extra else {}) | ({"added_tokens": added} if added else {})


def _as_special(value: object) -> object:
    if isinstance(value, list):
        return [_as_special(one) for one in value]
    return value | {"special": True} if isinstance(value, dict) and "content" in value else value


def add_stated(inner: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> None:
    """Add the tokens that the settings state; raises `TokenizerError` if one cannot have the id that is stated."""
    have = {token.content for token in inner.get_added_tokens_decoder().values()}
    roles = {} if settings.get("tokenizer_class") in FILE_ONLY else {f"{r}_token": word for r, word in SPECIALS.items()}
    by_name = {name: settings.get(name) or roles.get(name) for name in _NAMED}
    by_name |= {name: token for name, token in settings.items() if name.endswith("_token")}
    listed = settings.get(EXTRA) or settings.get(ADDITIONAL) or []
    if isinstance(listed, Mapping):  # these have names too
        by_name, listed = by_name | dict(listed), []
    if not isinstance(listed, list):
        raise TokenizerError(f"{EXTRA} must be a list of tokens, not {shown(listed)}")
    named = [token for token in map(_token, by_name.values()) if token is not None]
    others = [token for token in map(_token, listed) if token is not None]
    names = {token.content for token in named}
    decoded = [_decoded(i, token) for i, token in _mapping(settings, DECODER).items()]
    # In added_tokens.json a token is special if the settings say so; BERT's own spellings are not enough.
    said = [*(settings.get(name) for name in _NAMED), *(listed if EXTRA in settings else [])]
    special = {token.content for token in map(_token, said) if token is not None}
    for word, i in _mapping(settings, "added_tokens").items():
        if word not in have:
            decoded.append(_decoded(i, {"content": word, "special": word in special}))
    wanted: dict[str, tuple[int | None, Any]] = {}
    for number, token in sorted(decoded, key=lambda one: one[0]):
        wanted[token.content] = (number, token)
    for token in (*named, *others):
        if token.content not in have:
            wanted.setdefault(token.content, (None, token))
    for word in names & wanted.keys():
        wanted[word][1].special = True
    wanted.pop("", None)
    if wanted:
        _add(inner, wanted, set(special_tokens(settings).values()))


def _add(inner: tokenizers.Tokenizer, wanted: dict[str, tuple[int | None, Any]], roles: set[str]) -> None:
    new = [word for word in wanted if inner.token_to_id(word) is None]
    if all(word in roles and wanted[word][0] is None for word in new):  # whoever needs one of these says that it lacks
        wanted, new = {word: one for word, one in wanted.items() if word not in new}, []
    free = 1 + max(inner.get_vocab(with_added_tokens=True).values(), default=-1) if new else 0
    with library_call("the added tokens cannot be used"):
        inner.add_tokens([token for _, token in wanted.values()])
    for word, (stated, _) in wanted.items():
        found = inner.token_to_id(word)
        if word in new:
            if found != free or stated not in (None, found):
                said = "" if stated is None else f" with the id {stated:,}"
                raise TokenizerError(f"the token {shown(word)} is stated{said}, but the next free id is {free:,}: ids "
                                     "must follow the vocabulary's without a gap")  # fmt: skip
            free += 1
        elif stated not in (None, found):
            warn(
                f"{shown(word)} is stated with the id {stated:,}; the vocabulary has it as {found:,}, which counts",
                stacklevel=4,
            )


def stated(inner: tokenizers.Tokenizer, roles: Mapping[str, str]) -> dict[str, Any]:
    """What tokenizer_config.json must say for the same added tokens; nothing where they are BERT's own alone."""
    added = dict(sorted(inner.get_added_tokens_decoder().items()))
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    flags = {i: {flag: getattr(token, flag) for flag in _FLAGS} for i, token in added.items()}
    if all(token.content in roles.values() and flags[i] == plain for i, token in added.items()):
        return {}
    more = [token.content for token in added.values() if token.special and token.content not in roles.values()]
    return {
        DECODER: {str(i): {"content": token.content, **flags[i]} for i, token in added.items()},
        **({ADDITIONAL: more} if more else {}),
    }


def _mapping(settings: Mapping[str, Any], name: str) -> Mapping[Any, Any]:
    value = settings.get(name) or {}
    if not isinstance(value, Mapping):
        raise TokenizerError(f"{name} must be a JSON object, not {shown(value)}")
    return value


def _decoded(number: object, source: object) -> tuple[int, Any]:
    token = _token(source) if isinstance(source, Mapping) else None
    if token is None:
        raise TokenizerError(f"{DECODER}'s {shown(number)} must be a token with its content, not {shown(source)}")
    return _number(number), token


def _number(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TokenizerError(f"an added token's id must be a whole number, not {shown(value)}")
    return value


def _token(source: object) -> Any:
    """The library's token of a text, which is a special one, or of a JSON object; None for what names none."""
    from tokenizers import AddedToken

    if isinstance(source, str):
        return AddedToken(source, special=True)
    if not isinstance(source, Mapping) or not isinstance(source.get("content"), str):
        return None
    flags = {flag: source[flag] for flag in _FLAGS if flag in source}
    if not all(isinstance(value, bool) for value in flags.values()):
        raise TokenizerError(f"the flags of the added token {shown(source['content'])} must be true or false")
    return AddedToken(source["content"], **flags)
