"""Compares the module `ifeval` with lm-evaluation-harness, pair by pair, and prints the disagreements a kind.

    cargo build --release --example ifeval
    NLTK_DATA=$NLTK_DATA python tests/parity/ifeval.py --judge target/release/examples/ifeval \
        --prompts $QPIPE_TEST_DATA/ifeval/input_data.jsonl [--golden tests/golden/ifeval/verdicts.jsonl]

Needs lm_eval[ifeval] 0.4.13 (with NLTK 3.10 and langdetect 1.0.9), and below $NLTK_DATA NLTK's package `punkt_tab`,
of which $QPIPE_TEST_DATA/nltk_punkt_english is the folder `tokenizers/punkt_tab/english`. langdetect gets seed 0 for
the comparison; how often it agrees without one is measured after. Exits with 1 when a verdict differs.

A pair is an instruction of the dataset, or one like it, and a response that is made to follow it or nearly, or that
is made of awkward parts. Where something is counted, the bound is the count that the reference finds and the one
above it, so that every count that differs shows. With --golden, writes short cases of every kind to a file.
"""

import argparse
import collections
import contextlib
import io
import json
import logging
import platform
import random
import subprocess
import sys
import unicodedata
import warnings
from importlib.metadata import version

import langdetect
import nltk
from lm_eval.tasks.ifeval import instructions_registry, instructions_util, utils

import ifeval_cases as cases
from ifeval_texts import BY_LANGUAGE, SHORT_ENGLISH

LANGUAGE_KINDS = ("language:response_language", "change_case:english_capital", "change_case:english_lowercase")
# What the reference draws at random: a letter that is none of the alphabet.
LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ\u212a")


def reference(case):
    kind, kwargs, response = case
    doc = {"key": 0, "prompt": "", "instruction_id_list": [kind], "kwargs": [kwargs]}
    try:
        found = utils.process_results(doc, [response])
    except Exception as error:  # the reference fails in as many ways as there are arguments
        return {"error": f"{type(error).__name__}: {error}"}
    return {"strict": bool(found["inst_level_strict_acc"][0]), "loose": bool(found["inst_level_loose_acc"][0])}


def ours(judge, all_cases):
    lines = [json.dumps({"id": kind, "kwargs": kwargs, "response": response}) for kind, kwargs, response in all_cases]
    done = subprocess.run(
        [judge], input="\n".join(lines) + "\n", capture_output=True, text=True, encoding="utf-8", check=True
    )
    found = [json.loads(line) for line in done.stdout.split("\n") if line]
    assert len(found) == len(all_cases)
    return found


def counted(kind, kwargs, response):
    """The names of the count and the relation of `kind`, and what the reference counts in `response`."""
    name = kind.split(":")[1]
    if name == "number_sentences":
        return "num_sentences", "relation", instructions_util.count_sentences(response)
    if name == "number_words":
        return "num_words", "relation", instructions_util.count_words(response)
    if name == "capital_word_frequency":
        return "capital_frequency", "capital_relation", sum(word.isupper() for word in nltk.word_tokenize(response))
    return None


def exact(case):
    """`case` with the bound at the reference's count, and above it."""
    kind, kwargs, response = case
    found = counted(kind, kwargs, response)
    if found is None:
        return [case]
    number, relation, count = found
    return [(kind, {number: bound, relation: "at least"}, response) for bound in (count, count + 1) if bound > 0]


def made(dice, prompts, each):
    """Cases of the dataset's instructions, more where a kind has few."""
    of_kind = collections.Counter(kind for row in prompts for kind in row["instruction_id_list"])
    for row in prompts:
        for kind, kwargs in zip(row["instruction_id_list"], row["kwargs"]):
            turns = max(each, 40 * each // of_kind[kind])
            for turn in range(each // 3 if kind in LANGUAGE_KINDS else turns):
                if turn % 3 == 0:
                    response = dice.choice([cases.mixture, cases.soup])(dice)
                else:
                    response = cases.wrapped(dice, cases.targeted(dice, kind, kwargs))
                case = (kind, kwargs, response)
                yield case
                if turn % 4 == 0:
                    yield from exact(case)
    for row in prompts:
        for kind, kwargs in zip(row["instruction_id_list"], row["kwargs"]):
            if kind not in LANGUAGE_KINDS:
                yield kind, kwargs, row["prompt"]
                yield from exact((kind, kwargs, row["prompt"]))


def awkward(prompts):
    """Every awkward text for a few instructions of every kind."""
    by_kind = collections.defaultdict(list)
    for row in prompts:
        for kind, kwargs in zip(row["instruction_id_list"], row["kwargs"]):
            if kwargs not in by_kind[kind] and not by_design((kind, kwargs, ""), {}):
                by_kind[kind].append(kwargs)
    for kind, some in sorted(by_kind.items()):
        for response in cases.AWKWARD + cases.ENGLISH + SHORT_ENGLISH:
            for kwargs in some[:2]:
                yield kind, kwargs, response
            if kind not in LANGUAGE_KINDS:
                yield from exact((kind, some[0], response))


def texts(dice, count):
    """Sentences, words and capital words of many texts."""
    kinds = [
        ("length_constraints:number_sentences", {}),
        ("length_constraints:number_words", {}),
        ("change_case:capital_word_frequency", {}),
    ]
    for _ in range(count):
        response = dice.choice([cases.mixture, cases.soup, cases.soup])(dice)
        for kind, kwargs in kinds:
            yield from exact((kind, kwargs, response))


def expressions(dice, count):
    """Keywords that are expressions at random."""
    import re

    for _ in range(count):
        source, response = cases.expression(dice), cases.letters(dice) + cases.letters(dice)
        kind = dice.choice(
            [
                "keywords:frequency",
                "keywords:existence",
                "keywords:forbidden_words",
                "detectable_format:multiple_sections",
                "detectable_content:postscript",
            ]
        )
        if kind == "keywords:existence":
            yield kind, {"keywords": [source]}, response
        elif kind == "keywords:forbidden_words":
            yield kind, {"forbidden_words": [source]}, response
        elif kind == "detectable_content:postscript":
            yield kind, {"postscript_marker": source}, response
        elif kind == "detectable_format:multiple_sections":
            for sections in (1, 2, 3):
                yield kind, {"section_spliter": source, "num_sections": sections}, response
        else:
            try:
                number = len(re.findall(source.strip(), response, flags=re.IGNORECASE))
            except re.error:
                number = 1
            for frequency in (number, number + 1):
                if frequency:
                    yield kind, {"keyword": source, "frequency": frequency, "relation": "at least"}, response


def one_letter():
    """Every cased letter as a keyword, against all of them."""
    import re

    cased = [chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    cased = [c for c in cased if c.lower() != c or c.upper() != c]
    response = " ".join(cased)
    for letter in cased:
        for source in (letter, f"[{letter}]"):
            number = len(re.findall(source, response, flags=re.IGNORECASE))
            for frequency in (number, number + 1):
                yield "keywords:frequency", {
                    "keyword": source,
                    "frequency": frequency,
                    "relation": "at least",
                }, response


def broken():
    """Arguments that the reference refuses, or makes up."""
    yield "punctuation:no_colon", {}, "a"
    yield "punctuation:no_comma", {"letter": "a"}, "a"
    yield "length_constraints:number_words", {"num_words": 1, "relation": "at most"}, "a"
    yield "language:response_language", {"language": "xx"}, "a"
    yield "combination:repeat_prompt", {"prompt_to_repeat": ""}, "a"
    yield "keywords:existence", {"keywords": ["("]}, "a"
    yield "keywords:letter_frequency", {"letter": "a", "let_frequency": 1, "let_relation": "at most"}, "a"


def by_design(case, theirs):
    """Why a verdict may differ."""
    kind, kwargs, _ = case
    if kind == "keywords:letter_frequency" and kwargs.get("letter") not in LETTERS:
        return "a random letter"
    if "RecursionError" in theirs.get("error", ""):
        return "nesting without end"
    return None


def same(theirs, mine):
    return mine == theirs or ("error" in theirs and "error" in mine)


def compare(judge, all_cases, shown):
    table, differ, explained = collections.defaultdict(collections.Counter), [], collections.Counter()
    expected = [reference(case) for case in all_cases]
    for case, theirs, mine in zip(all_cases, expected, ours(judge, all_cases)):
        row = table[case[0]]
        reason = by_design(case, theirs)
        if reason:
            explained[reason] += 1
            continue
        row["pairs"] += 1
        row["errors"] += "error" in theirs
        row["followed"] += bool(theirs.get("strict"))
        row["loosely"] += bool(theirs.get("loose"))
        if not same(theirs, mine):
            row["differ"] += 1
            differ.append((case, theirs, mine))
    print(f"{'kind':<48}{'pairs':>8}{'strict':>8}{'loose':>8}{'errors':>8}{'differ':>8}")
    total = collections.Counter()
    for kind, row in sorted(table.items()):
        total.update(row)
        print(
            f"{kind:<48}" + "".join(f"{row[name]:>8}" for name in ("pairs", "followed", "loosely", "errors", "differ"))
        )
    print(
        f"{'all':<48}" + "".join(f"{total[name]:>8}" for name in ("pairs", "followed", "loosely", "errors", "differ"))
    )
    for reason, count in explained.items():
        print(f"not compared, since the reference has {reason}: {count}")
    for case, theirs, mine in differ[:shown]:
        print("differs:", *(json.dumps(part, ensure_ascii=True)[:600] for part in (*case, theirs, mine)), sep="\n    ")
    return len(differ), expected


def without_seed(judge, all_cases):
    """How often the verdicts on language agree with the reference as it is, which has no seed."""
    some = [case for case in all_cases if case[0] in LANGUAGE_KINDS]
    mine = ours(judge, some)
    langdetect.DetectorFactory.seed = None
    first, second = ([reference(case) for case in some] for _ in range(2))
    langdetect.DetectorFactory.seed = 0
    agree = sum(map(same, first, mine))
    itself = sum(map(same, first, second))
    print(f"without a seed, verdicts on language agree: {agree} of {len(some)}; the reference with itself: {itself}")


def golden(path, dice, count):
    """Short cases of our own, `count` a kind, as even as they come between followed, loosely followed and not."""
    own = {
        "keywords:existence": [
            {"keywords": ["train", "coast"]},
            {"keywords": ["caf.", "bread"]},
            {"keywords": [r"(\w)\1", "(?=the)"]},
        ],
        "keywords:frequency": [
            {"keyword": "river", "frequency": 2, "relation": "at least"},
            {"keyword": "is", "frequency": 3, "relation": "less than"},
            {"keyword": "a*", "frequency": 20, "relation": "at least"},
        ],
        "keywords:forbidden_words": [{"forbidden_words": ["late", "later"]}, {"forbidden_words": ["was?", "is"]}],
        "keywords:letter_frequency": [
            {"letter": "e", "let_frequency": 3, "let_relation": "at least"},
            {"letter": "k", "let_frequency": 2, "let_relation": "less than"},
        ],
        "language:response_language": [
            {"language": code} for code in ("de", "en", "hi", "sw", "fi", "ko", "pt", "bg")
        ],
        "length_constraints:number_sentences": [
            {"num_sentences": n, "relation": r} for n in (2, 3, 4) for r in ("at least", "less than")
        ],
        "length_constraints:number_paragraphs": [{"num_paragraphs": n} for n in (1, 2, 3)],
        "length_constraints:number_words": [
            {"num_words": n, "relation": r} for n in (4, 9, 12) for r in ("at least", "less than")
        ],
        "length_constraints:nth_paragraph_first_word": [
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "river"},
            {"num_paragraphs": 3, "nth_paragraph": 1, "first_word": "Don"},
        ],
        "detectable_content:number_placeholders": [{"num_placeholders": n} for n in (1, 2, 3)],
        "detectable_content:postscript": [
            {"postscript_marker": "P.S."},
            {"postscript_marker": "P.P.S"},
            {"postscript_marker": "PS:"},
        ],
        "detectable_format:number_bullet_lists": [{"num_bullets": n} for n in (1, 2, 3)],
        "detectable_format:constrained_response": [{}],
        "detectable_format:number_highlighted_sections": [{"num_highlights": n} for n in (1, 2, 3)],
        "detectable_format:multiple_sections": [
            {"section_spliter": "Section", "num_sections": 2},
            {"section_spliter": "(Day|Week)", "num_sections": 2},
        ],
        "detectable_format:json_format": [{}],
        "detectable_format:title": [{}],
        "combination:two_responses": [{}],
        "combination:repeat_prompt": [{"prompt_to_repeat": "Write a note on rivers.\nKeep it short. "}],
        "startend:end_checker": [{"end_phrase": "Is that all?"}, {"end_phrase": " Any ΟΔΟΣ "}],
        "change_case:capital_word_frequency": [
            {"capital_frequency": n, "capital_relation": r} for n in (2, 3, 5) for r in ("at least", "less than")
        ],
        "change_case:english_capital": [{}],
        "change_case:english_lowercase": [{}],
        "punctuation:no_comma": [{}],
        "startend:quotation": [{}],
    }
    assert sorted(own) == sorted(instructions_registry.INSTRUCTION_DICT)
    written = {
        "note": "Verdicts of the task ifeval on responses of our own; made by tests/parity/ifeval.py --golden.",
        "lm_eval": version("lm_eval"),
        "nltk": version("nltk"),
        "langdetect": version("langdetect") + ", seed 0",
        "python": platform.python_version(),
    }
    with open(path, "w", encoding="utf-8") as file:
        print(json.dumps(written), file=file)
        for kind, arguments in sorted(own.items()):
            found = collections.defaultdict(list)
            for turn in range(600):
                kwargs = dice.choice(arguments)
                response = (
                    cases.wrapped(dice, cases.targeted(dice, kind, kwargs))
                    if turn % 3
                    else dice.choice([cases.mixture, cases.soup, lambda dice: dice.choice(cases.AWKWARD)])(dice)
                )
                for case in exact((kind, kwargs, response)) if turn % 2 else [(kind, kwargs, response)]:
                    if len(response) < 320 and all(
                        response != other[0][2] for others in found.values() for other in others
                    ):
                        verdict = reference(case)
                        found[verdict["strict"], verdict["loose"]].append((case, verdict))
            chosen = []
            while len(chosen) < count:
                chosen += [group.pop(0) for _, group in sorted(found.items()) if group]
            for (_, kwargs, response), verdict in chosen[:count]:
                print(
                    json.dumps({"id": kind, "kwargs": kwargs, "response": response, **verdict}, ensure_ascii=False),
                    file=file,
                )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--judge", required=True)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--each", type=int, default=15, help="responses an instruction of the dataset")
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument("--expressions", type=int, default=3000)
    parser.add_argument("--show", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--golden")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    langdetect.DetectorFactory.seed = 0
    dice = random.Random(options.seed)
    if options.golden:
        golden(options.golden, dice, 12)
        return 0
    versions = ", ".join(f"{name} {version(name)}" for name in ("lm_eval", "nltk", "langdetect"))
    print(f"{versions}, Python {platform.python_version()} (Unicode {unicodedata.unidata_version})")
    with open(options.prompts, encoding="utf-8") as file:
        prompts = [json.loads(line) for line in file]
    all_cases = [*made(dice, prompts, options.each), *awkward(prompts), *broken()]
    differ, _ = compare(options.judge, all_cases, options.show)
    print("\ncounts in texts at random, keywords that are expressions at random, every cased letter:")
    extra = [*texts(dice, options.texts), *expressions(dice, options.expressions), *one_letter()]
    differ += compare(options.judge, extra, options.show)[0]
    without_seed(options.judge, all_cases)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
