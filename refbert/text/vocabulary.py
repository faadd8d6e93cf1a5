"""The files behind a tokenizer: vocab.txt and the settings beside it, and the pipeline that they describe."""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refbert.config.profiles import Profile
from refbert.errors import TokenizerError, warn
from refbert.files.json import read_object
from refbert.files.reading import is_file, read_text, shown

if TYPE_CHECKING:
    import tokenizers

# Role -> BERT's own spelling, used unless the checkpoint's files say otherwise.
SPECIALS = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}

# tokenizer_config.json's name for a setting -> the library's, in BertNormalizer.
NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}

# Classes of transformers that read tokenizer.json and nothing else; its BertTokenizer builds from the settings.
FILE_ONLY = ("PreTrainedTokenizerFast", "TokenizersBackend")

# Those that are BERT's tokenizer under another name, and the models that have one of them.
_SAME = (
    "Bert", "ConvBert", "DPRContextEncoder", "DPRQuestionEncoder", "DPRReader", "DistilBert", "Electra", "LayoutLM",
    "Lxmert", "MobileBert", "Realm", "RetriBert", "SqueezeBert",
)  # fmt: skip
WORDPIECE = frozenset(
    {*FILE_ONLY, "AutoTokenizer", *(f"{name}Tokenizer{fast}" for name in _SAME for fast in ("", "Fast"))}
)
_WORDPIECE_MODELS = frozenset({
    "bert", "convbert", "distilbert", "dpr", "electra", "ernie", "layoutlm", "lxmert", "megatron-bert", "mobilebert",
    "nezha", "nomic_bert", "qdqbert", "realm", "retribert", "squeezebert", "visual_bert",
})  # fmt: skip
# What a Japanese tokenizer is told, where its class is not named.
_SPLITTERS = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece"}


_LONGEST_FILE = 1 << 26  # bytes; the largest vocabularies of word pieces have some 2 MB


def read_vocabulary(path: Path) -> list[str]:
    """``vocab.txt``: one piece a line, the line's number (from 0) its id. Raises `TokenizerError` if it cannot be read.

    Of a repeated piece the last line counts, as in Google's and Hugging Face's code; a `RefbertWarning` says so.
    """
    # Not splitlines(): the Chinese vocabulary has U+2028, a line separator, as a piece.
    text = read_text(path, TokenizerError, most=_LONGEST_FILE)
    pieces = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while pieces and not pieces[-1]:
        pieces.pop()
    seen: dict[str, int] = {}
    repeated: list[tuple[int, int]] = []
    for number, piece in enumerate(pieces):
        if piece and piece in seen:
            repeated.append((seen[piece], number))
        seen[piece] = number
    if repeated:
        first, second = repeated[0]
        others = f" (and {len(repeated) - 1:,} more such)" if repeated[1:] else ""
        warn(
            f"{path}: lines {first + 1} and {second + 1} are both {pieces[first]!r}; the later one counts{others}",
            stacklevel=2,
        )
    return pieces


def require_wordpiece(directory: Path, settings: Mapping[str, Any]) -> str | None:
    """The tokenizer's class where transformers looks for one; raises `TokenizerError` if it is not WordPiece."""
    file, kind = "tokenizer_config.json", settings.get("tokenizer_class")
    if kind is None and is_file(directory / "config.json", TokenizerError):
        config = read_object(directory / "config.json", TokenizerError)
        file, kind = "config.json", config.get("tokenizer_class")
        model = config.get("model_type") or "bert"
        if kind is None and not (isinstance(model, str) and model in _WORDPIECE_MODELS):
            raise TokenizerError(f"{directory / file}: model_type is {shown(model)}; refbert reads WordPiece alone")
    if kind is not None and not (isinstance(kind, str) and kind in WORDPIECE):
        raise TokenizerError(f"{directory / file}: tokenizer_class is {shown(kind)}; refbert reads WordPiece alone")
    elsewhere = settings.get("auto_map")
    for named in _classes(elsewhere.get("AutoTokenizer")) if isinstance(elsewhere, Mapping) else ():
        if named.rpartition(".")[2] not in WORDPIECE:
            raise TokenizerError(f"{directory}: auto_map names {shown(named)}; refbert reads WordPiece alone")
    for name, plain in _SPLITTERS.items():
        if settings.get(name) not in (None, plain):
            raise TokenizerError(f"{directory}: {name} is {shown(settings[name])}; refbert reads WordPiece alone")
    return kind


def _classes(source: object) -> list[str]:
    """A class, or one in Python and one in Rust of which either may be missing."""
    return [name for name in (source if isinstance(source, list) else [source]) if isinstance(name, str)]


def cut_side(inner: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> str:
    """The end at which texts are cut, "right" or "left": as the settings say, or else the tokenizer itself."""
    return str(settings.get("truncation_side") or (inner.truncation or {}).get("direction", "right")).lower()


def has_segments(settings: Mapping[str, Any]) -> bool:
    """Whether the model is told the segments of a pair: as the settings say, or else as its class does."""
    named = settings.get("model_input_names")
    if named is None:
        return not str(settings.get("tokenizer_class")).startswith(("DistilBert", "DPRReader"))
    return "token_type_ids" in named


def looks_cased(vocabulary: Collection[str]) -> bool:
    """Whether a vocabulary was learned from cased text: some capital letter is a piece of its own."""
    return not set(string.ascii_uppercase).isdisjoint(vocabulary)


def build(vocabulary: Sequence[str], settings: Mapping[str, Any], profile: Profile) -> tokenizers.Tokenizer:
    """BERT's tokenizer around a vocabulary: the pipeline that `refbert.text.tokenization` draws."""
    from tokenizers import Tokenizer as Inner
    from tokenizers.decoders import WordPiece as WordPieceDecoder
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import BertProcessing

    words = special_tokens(settings)
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    inner = Inner(WordPiece(ids, unk_token=words["unk"], max_input_chars_per_word=profile.max_chars_per_word))
    inner.normalizer = BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=settings.get("strip_accents"),
        lowercase=bool(settings.get("do_lower_case", True)),
    )
    inner.pre_tokenizer = BertPreTokenizer()
    sep, cls = words["sep"], words["cls"]
    inner.post_processor = BertProcessing((sep, ids.get(sep, 0)), (cls, ids.get(cls, 0)))  # Tokenizer refuses a lack
    inner.decoder = WordPieceDecoder(prefix="##")
    return inner


def apply_stated(inner: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> None:
    """Where tokenizer_config.json states casing, accents or Chinese spacing, it wins over tokenizer.json."""
    from tokenizers.normalizers import BertNormalizer

    stated = {theirs: settings[name] for name, theirs in NORMALIZER.items() if name in settings}
    if stated and isinstance(inner.normalizer, BertNormalizer) and settings.get("tokenizer_class") not in FILE_ONLY:
        for name, value in stated.items():
            setattr(inner.normalizer, name, value)


def lower_first(inner: tokenizers.Tokenizer) -> None:
    """Lower-case texts before all else, unless that is what the pipeline does already."""
    from tokenizers.normalizers import Lowercase
    from tokenizers.normalizers import Sequence as Steps

    found = inner.normalizer
    steps = [found[i] for i in range(len(found))] if isinstance(found, Steps) else [] if found is None else [found]
    if not any(isinstance(step, Lowercase) for step in steps):
        inner.normalizer = Steps([Lowercase(), *steps])


def special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Role -> spelling, from the settings where they say it."""
    return {role: _content(settings.get(f"{role}_token")) or word for role, word in SPECIALS.items()}


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object, or nothing where there is no file; raises `TokenizerError` for anything else."""
    if not is_file(path, TokenizerError):
        return {}
    settings = read_object(path, TokenizerError)
    check_settings(settings, path)
    return settings


def check_settings(settings: Mapping[str, Any], where: object) -> None:
    """Raise `TokenizerError` for a setting of the wrong type, among those that are used."""
    for name in NORMALIZER:
        value = settings.get(name)
        if not isinstance(value, bool) and not (value is None and (name == "strip_accents" or name not in settings)):
            raise TokenizerError(f"{where}: {name} must be true or false, not {shown(value)}")
    for role in SPECIALS:
        value = settings.get(f"{role}_token")
        if value is not None and not _content(value):
            raise TokenizerError(f"{where}: {role}_token must be a text, not {shown(value)}")
    length = settings.get("model_max_length")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int | float) or length < 1):
        raise TokenizerError(f"{where}: model_max_length must be a number of at least 1, not {shown(length)}")
    if settings.get("truncation_side") not in (None, "left", "right"):
        side = settings["truncation_side"]
        raise TokenizerError(f"{where}: truncation_side must be left or right, not {shown(side)}")
    inputs = settings.get("model_input_names")
    if inputs is not None and not isinstance(inputs, list | tuple):
        raise TokenizerError(f"{where}: model_input_names must be a list of names, not {shown(inputs)}")
    kind = settings.get("tokenizer_class")
    if not isinstance(kind, str | None):
        raise TokenizerError(f"{where}: tokenizer_class must be a name, not {shown(kind)}")


def _content(token: object) -> str | None:
    """A special token as it is written: a string, or an object with its "content"."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None
