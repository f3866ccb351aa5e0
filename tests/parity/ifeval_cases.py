"""Responses to judge, right, wrong and awkward, for ifeval.py. All text is our own."""

import string

from ifeval_texts import BY_LANGUAGE, SHORT_ENGLISH

ENGLISH = [
    "The train to the coast leaves a little later today.",
    "I bought two loaves of bread and some cheese.",
    "Dr. Smith met Mrs. Jones at 5 p.m. on Jan. 3 in Washington D.C. and left.",
    "Is it true?",
    "No way!",
    'She said, "We are late." Then she left.',
    "He asked: 'Why now?' Nobody knew.",
    "It costs $3.50, i.e. not much.",
    "We visited the U.S. The weather was fine.",
    "We visited the U.S. in May.",
    "J. R. R. Tolkien wrote it. So they say.",
    "Wait... what? Really?!",
    "See fig. 3 on p. 12 (cf. ch. 4). It helps.",
    "Prof. A. B. Clark et al. agree.",
    "Visit https://example.com/a.b?c=d. It is free.",
    "Mail a.b@example.com now!",
    "Version 2.0.1 is out. 3 fixes.",
    "He works at Acme Inc. They pay well.",
    "He works at Acme Inc. and is paid well.",
    "No. 5 is alive.",
    "The answer is no. However, it may change.",
    "1. First item. 2. Second item.",
    "(It was late.) We went home.",
    "“Curly quotes.” They matter.",
    "‘Single ones.’ Too.",
    "«Guillemets.» Also.",
    "He left -- at last. Then -- nothing.",
    "NASA AND THE FBI MET. OK?",
    "I CAN'T, WON'T, and SHOULDN'T.",
    "It's JOHN'S book; we've read it.",
    "A B C D E. F!",
    "The U.N. Security Council met.",
    "e.g. this. E.g. That.",
    "Cannot gonna wanna gimme lemme gotta 'tis 'TWAS d'ye more'n.",
    '"Hello," he said. "Goodbye."',
    "One. two. three.",
    "end.No space.After",
    "Mr. and Mrs. Brown vs. St. John's Co. Ltd.",
    "At 3:30 a.m. Eastern Time. He slept.",
    "A.",
    "a. b. c.",
    "No! No? No.",
    "Well ... maybe. . . . Perhaps.",
    "x.) y.] z.}",
    "50% off; 20# bags & more @ home *now*.",
    'The end."',
    "He said 'yes.'",
    "State-of-the-art so-called A.I. systems.",
    "In the year 1999. Then 2000.",
    "Approx. 5 km. Roughly.",
    "Sen. Lee, Gov. Ray, Gen. Poe.",
    "Etc. etc. And so on.",
]
AWKWARD = [
    "",
    " ",
    "\n",
    "\n\n\n",
    "\t \u3000",
    "\u00a0",
    "\u200b",
    ".",
    "...",
    "?!",
    "-",
    "*",
    "**",
    "***",
    "****",
    "******",
    "*\n*",
    '"',
    '""',
    "'",
    "''",
    '"a"',
    '"a',
    "“a”",
    "<<>>",
    "<< >>",
    "<<a>>",
    "<<<a>>>",
    "<<a\nb>>",
    "<<a>> <<b>>",
    "<a>",
    "<< >> x >>",
    "[a]",
    "[[a] b]",
    "[a\nb]",
    "[]",
    "[a] [b][c]",
    "]a[",
    "{a}",
    "\u2028a\u2028b",
    "a\x1cb\x1dc",
    "a\x85b",
    "\r\n\r\n",
    "line one\r\nline two\r\n\r\nline three",
    "a\n\nb\n\n\nc",
    "\n\na\n\nb\n\n",
    "😀",
    "😀😀 ok 👨‍👩‍👧‍👦",
    "ÀÉÎ ÕÜ",
    "àéî õü",
    "ǅ",
    "ßẞ",
    "İıſK",
    "ΟΔΟΣ ΟΔΟΣ. ΣΑΣ",
    "ﬁﬂ ﬅﬆ",
    "１２３ ４５",
    "²³ ½ Ⅷ",
    "a_b-c d'e",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "今日は、いい天気。",
    "你好。世界!",
    "مرحبا، كيف؟",
    "x\u0301y\u0302",
    "a\u200db",
    "p.s. x",
    "P.S. x",
    "P. S. x",
    "P.P.S x",
    "p. p. s. x",
    "P.P.S. x",
    "PS x",
    "p.\ns. x",
    "post scriptum",
    "p.p.s",
    "My answer is yes.",
    "my answer is no.",
    "My answer is  maybe.",
    "I think: My answer is maybe. Or not.",
    "{}",
    "[1, 2",
    '```json\n{"a": 1}\n```',
    "```JSON\n[]```",
    "```Json\n1```",
    "```\nnull\n```",
    "``` json\n{}\n```",
    "```json```",
    "```json\n```json\n{}\n```",
    "NaN",
    "[Infinity, -Infinity]",
    '{"a": NaN}',
    "1e999",
    "-0",
    "01",
    "{'a': 1}",
    '{"a": 1,}',
    '"\\ud800"',
    '"tab\there"',
    '{"a": {"b": [1, [2, [3, {}]]]}}',
    'Sure!\n{"a": 1}',
    '{"a": 1}\nDone.',
    "\ufeff{}",
    "\u00a0{}\u00a0",
    "true",
    "tru",
    '{"a": 1}{"b": 2}',
    '["\\u00e9", "\\x41"]',
    "// c\n{}",
    "* a\n* b",
    "- a\n- b",
    "  * a\n\t- b\n+ c\n• d",
    "*a*\n*b",
    "** a\n** b",
    "*\na",
    "-\n-\n-",
    "---\n***\n- a",
    "1. a\n2. b",
    "* a\n  * b\n    * c\n",
    "*a*",
    "**a**",
    "***a***",
    "* a *",
    "*a* *b* **c**",
    "*a\nb*",
    "**a** **b**",
    "* *",
    "** **",
    "*\u3000*",
    "_a_ __b__",
    "a***b",
    "a *** b",
    "a\n***\nb\n***\nc",
    "***\na\n***",
    "a\n***\n***\nb",
    "a******b",
    "a\n******\nb",
    "a******a",
    "a ******  a ",
    "******a******b******",
    "a******b******c",
    "a*******b",
    "a************b",
    "Section 1\na\nSection 2\nb",
    "SECTION 1 SECTION 2",
    "Section1Section2",
    "section 1",
    "Section one",
    "Day 1: x\nDay 2: y\nDay 10: z",
    "PARAGRAPH 1\nx\n\nPARAGRAPH 2\ny",
    "Audience 1 Audience 2 Audience  3",
    "Section ١",
    "a, b",
    "a، b",
    "a，b",
    "a,b",
    "HELLO WORLD",
    "hello world",
    "Hello World",
    "123",
    "123 ABC",
    "123 abc",
    "WE AGREE. THIS IS FINE AND THE TRAIN LEAVES LATER TODAY.",
    "we agree. this is fine and the train leaves later today.",
    "DAS IST EIN HAUS UND WIR GEHEN HEUTE NACH HAUSE.",
    "das ist ein haus und wir gehen heute nach hause.",
    "Aª",
    "ª",
    'the end"',
    'the end.""',
    "'the end'",
    '"the end" ',
]
SEPARATORS = [
    " ",
    "  ",
    "\n",
    "\n\n",
    " \n",
    "\r\n",
    "\t",
    " - ",
    " *** ",
    "\n***\n",
    "******",
    ", ",
    "; ",
    "\n* ",
    "\n- ",
    "*",
    '"',
    " “",
    "” ",
    " (",
    ") ",
    "... ",
    ". ",
    "",
    "\u00a0",
    "\u2028",
    "\n\n\n",
    "'",
]
PARTS = ENGLISH + AWKWARD + SHORT_ENGLISH + [text for texts in BY_LANGUAGE.values() for text in texts]
TOKENS = (
    "the a of and Mr. Dr. U.S. e.g. i.e. p.m. etc. No. 3.14 1,000 5 2. -7 x. X. J. I. It He They "
    "However This river River war War cat CAT OK NASA IT'S can't CAN'T we'll WE'LL ' \" '' `` ` ( ) [ "
    "] { } < > << >> * ** *** - -- --- . .. ... ? ! ?! , ; : @ # $ % & / \\ | é É ß ñ 中 国 😀 « » “ ” ‘ "
    "’ „ — – … • ª Ⅷ İ ı ſ K ς Σ य़ा ก์ _ a_b well-known A-B u.n. St. Co. Inc. Jan. vs. fig. ing. "
    "etc.) \"OK.\" 'OK.' (OK.) OK.) don't. n't N'T 's 'S"
).split(" ")


def mixture(random):
    """Parts and separators at random."""
    count = random.choice([1, 2, 2, 3, 4, 6, 10])
    text = random.choice(PARTS)
    for _ in range(count - 1):
        text += random.choice(SEPARATORS) + random.choice(PARTS)
    return text


def soup(random):
    """Tokens at random, mostly with single spaces."""
    text = ""
    for _ in range(random.choice([3, 8, 20, 40])):
        text += random.choice(TOKENS) + random.choice([" ", " ", " ", " ", "", "\n", "  ", "\n\n"])
    return text


def paragraphs(random, count, joint):
    return joint.join(" ".join(random.sample(ENGLISH, random.choice([1, 2, 3]))) for _ in range(count))


def near(random, number):
    return max(0, number + random.choice([-2, -1, -1, 0, 0, 0, 1, 1, 2]))


def wrapped(random, text):
    """What a model adds around an answer."""
    return random.choice(
        [
            text,
            text,
            text,
            "Sure! Here it is:\n" + text,
            text + "\nI hope this helps, my friend!",
            "Sure:\n" + text + "\nBye, all.",
            "**" + text + "**",
            text.upper(),
            text.lower(),
            " \n" + text + "\n\n",
            "*" + text.replace(" ", "* *", 1),
            text.replace("\n", "\r\n"),
        ]
    )


JSON = [
    '{"title": "a", "items": [1, 2.5, -3e4, null, true], "nested": {"b": ["x", {"c": ""}]}}',
    '["a", "b"]',
    '"just text"',
    "12",
    '{"a": "é\\n\\u00e9"}',
    '{"a": [[[[[]]]]]}',
    '{"a": 1 "b": 2}',
    '{"a": "unclosed}',
    "[1, 2,]",
    '{"a": .5}',
    '{"a": +1}',
    "{a: 1}",
    '{"a": 0x10}',
    '{"a": 1} // c',
    '{"a": NaN}',
    "[1e400]",
    '{"a"; 1}',
]


def targeted(random, kind, kwargs):
    """A response that follows an instruction, or nearly."""
    name = kind.split(":")[1]
    if name == "existence":
        words = [word for word in kwargs["keywords"] if random.random() < 0.85]
        words = [random.choice([word, word.upper(), word.capitalize(), "pre" + word + "s"]) for word in words]
        return paragraphs(random, 1, "") + " " + random.choice([" ", "-", "\n", ", "]).join(words)
    if name == "forbidden_words":
        word = random.choice(kwargs["forbidden_words"])
        return (
            paragraphs(random, 1, "")
            + " "
            + random.choice(
                [
                    "",
                    word,
                    word.upper(),
                    word + "s",
                    "_" + word,
                    word + "é",
                    "é" + word,
                    word + "'s",
                    "-" + word + "-",
                    word + "\u0301",
                    word + "1",
                ]
            )
        )
    if name == "frequency":
        word = kwargs["keyword"]
        forms = [word, word.upper(), word.capitalize(), word + "s", "un" + word]
        return " ".join(
            random.choice(forms) + random.choice([" ", ", ", "\n", ""])
            for _ in range(near(random, kwargs["frequency"]))
        )
    if name == "letter_frequency":
        letter = kwargs["letter"]
        return " ".join(
            random.choice([letter, letter.upper(), letter * 2]) for _ in range(near(random, kwargs["let_frequency"]))
        )
    if name == "response_language":
        texts = BY_LANGUAGE.get(kwargs["language"], ENGLISH)
        return " ".join(random.choices(texts, k=random.choice([1, 2, 3]))) + random.choice(
            ["", " " + random.choice(ENGLISH)]
        )
    if name == "number_sentences":
        count = near(random, kwargs["num_sentences"])
        return random.choice([" ", " ", "\n", "\n\n"]).join(random.choice(ENGLISH) for _ in range(count))
    if name == "number_paragraphs":
        joint = random.choice(["\n***\n", " *** ", "***", "\n\n***\n\n", "\n* * *\n", "\n****\n"])
        return (
            random.choice(["", "", "***\n"])
            + paragraphs(random, near(random, kwargs["num_paragraphs"]), joint)
            + random.choice(["", "", "\n***"])
        )
    if name == "number_words":
        count = near(random, kwargs["num_words"])
        return " ".join(
            random.choice(["word", "don't", "3.5", "well-known", "é", "a_b", "-", "नमस्ते", "x2"])
            for _ in range(count)
        )
    if name == "nth_paragraph_first_word":
        count, nth, word = near(random, kwargs["num_paragraphs"]), kwargs["nth_paragraph"], kwargs["first_word"]
        blocks = [random.choice(ENGLISH) for _ in range(count)]
        if nth <= count:
            blocks[nth - 1] = (
                random.choice(["", "'", '"', "\"'", "'\"", "“", " "])
                + random.choice([word, word.upper(), word.capitalize(), word + "s"])
                + random.choice(["", ",", ".", "!", "'s", ":", "-", '"'])
                + " and more."
            )
        return random.choice(["\n\n", "\n\n", "\n\n", "\n", "\n\n\n", "\n\n\n\n", "\r\n\r\n", "\n \n"]).join(
            blocks
        ) + random.choice(["", "", "\n\n", "\n"])
    if name == "number_placeholders":
        return " ".join(
            random.choice(["[name]", "[a b]", "[x\n]", "[]", "[[n]]", "(n)", "[name]"])
            for _ in range(near(random, kwargs["num_placeholders"]))
        )
    if name == "postscript":
        marker = kwargs["postscript_marker"]
        return (
            random.choice(ENGLISH)
            + random.choice(["\n\n", " ", ""])
            + random.choice(
                [
                    marker,
                    marker.lower(),
                    marker.replace(".", ". "),
                    "P.S. ",
                    "P.P.S. ",
                    "PS: ",
                    "p.p.s",
                    "P.\u00a0S.",
                    "P.P. S",
                    "P.  S.",
                    "pXs.",
                ]
            )
            + " bye"
        )
    if name == "number_bullet_lists":
        marks = [
            "* ",
            "* ",
            "* ",
            "- ",
            "- ",
            "*",
            "-",
            "  * ",
            "\t- ",
            "+ ",
            "• ",
            "** ",
            "1. ",
            "*\n",
            "*- ",
            "-* ",
            "\u3000* ",
            "\x1c- ",
        ]
        return "\n".join(
            random.choice(marks) + random.choice(ENGLISH + ["*bold* text", "a\n\n"])
            for _ in range(near(random, kwargs["num_bullets"]))
        )
    if name == "constrained_response":
        return random.choice(
            [
                "My answer is yes.",
                "My answer is no.",
                "My answer is maybe.",
                "My answer is yes",
                "my answer is no.",
                "Well. My answer is maybe.",
                "*My* answer is yes.",
            ]
        )
    if name == "number_highlighted_sections":
        marks = [
            "*a b*",
            "**a b**",
            "***a***",
            "* *",
            "**",
            "****",
            "*a",
            "*a\nb*",
            "** a**",
            "_a_",
            "*\u3000*",
            "*a**b*",
        ]
        return " ".join(random.choice(marks) for _ in range(near(random, kwargs["num_highlights"])))
    if name == "multiple_sections":
        word = kwargs["section_spliter"].strip()
        return "\n".join(
            random.choice([word, word, word.upper(), word.lower(), word + " "])
            + random.choice([" ", "", "  ", "\n", "\u00a0"])
            + random.choice([str(i + 1), "X", "١", "１", "²"])
            + "\n"
            + random.choice(ENGLISH)
            for i in range(near(random, kwargs["num_sections"]))
        )
    if name == "json_format":
        text = random.choice(JSON)
        return (
            random.choice(["", "```json\n", "```\n", "```JSON", "```Json\n", "json\n", "```json ```", " "])
            + text
            + random.choice(["", "\n```", "```", "``", "\n"])
        )
    if name == "title":
        return (
            random.choice(["<<", "<", "<<<", "<< "])
            + random.choice(["a title", " ", "", "a\nb", "<b>", "\u3000", ">"])
            + random.choice([">>", ">", ">>>", " >>"])
            + "\n"
            + random.choice(ENGLISH)
        )
    if name == "two_responses":
        one, two = random.choice(ENGLISH), random.choice(ENGLISH[:3])
        return (
            random.choice(["", "", "******", "\n"])
            + one
            + random.choice(["******", "\n******\n", " ****** ", "*****", "*******", "************", "****** ******"])
            + random.choice([two, one, " " + one + "\n"])
            + random.choice(["", "", "******"])
        )
    if name == "repeat_prompt":
        prompt = kwargs["prompt_to_repeat"]
        return (
            random.choice(
                [
                    prompt,
                    prompt.upper(),
                    prompt.strip(),
                    "\n" + prompt,
                    '"' + prompt,
                    prompt[:-1],
                    prompt.replace("\n", " "),
                    "Sure:\n" + prompt,
                    "**" + prompt,
                ]
            )
            + random.choice(["", "\n", " "])
            + random.choice(ENGLISH)
        )
    if name == "end_checker":
        phrase = kwargs["end_phrase"]
        return (
            random.choice(ENGLISH)
            + " "
            + random.choice(
                [
                    phrase,
                    phrase.upper(),
                    phrase.strip(),
                    phrase[:-1],
                    phrase + "\n",
                    phrase + '"',
                    '"' + phrase + '"',
                    phrase + "'",
                    phrase + ".",
                    phrase + "\nBye",
                ]
            )
        )
    if name == "quotation":
        return (
            random.choice(['"', '"', "“", "'", '\n"', ""])
            + random.choice(ENGLISH)
            + random.choice(['"', '"', "”", "'", '"\n', '".', ""])
        )
    if name == "capital_word_frequency":
        forms = [
            "NASA",
            "OK",
            "I",
            "A",
            "U.S.",
            "CAN'T",
            "WON'T",
            "WELL-KNOWN",
            "A1",
            "É",
            "HELLO,",
            "(YES)",
            '"NO"',
            "X.",
            "IT'S",
            "THEY'LL",
            "CANNOT",
            "AT&T",
            "word",
            "3D",
            "#TAG",
            "A/B",
            "…OK",
            "“OK”",
            "OK…",
            "GONNA",
            "'TIS",
        ]
        return " ".join(random.choice(forms) for _ in range(near(random, kwargs["capital_frequency"])))
    if name == "english_capital":
        return random.choice(
            [
                paragraphs(random, 1, ""),
                random.choice(SHORT_ENGLISH),
                random.choice(random.choice(list(BY_LANGUAGE.values()))),
            ]
        ).upper() + random.choice(["", "", " ok", " 123", "ª"])
    if name == "english_lowercase":
        return random.choice(
            [
                paragraphs(random, 1, ""),
                random.choice(SHORT_ENGLISH),
                random.choice(random.choice(list(BY_LANGUAGE.values()))),
            ]
        ).lower() + random.choice(["", "", " OK", " 123", "Ⅷ", "ª"])
    return random.choice(ENGLISH) + random.choice(["", ",", "，", "、", "\u060c"])


REGEX_ATOMS = [
    "a",
    "b",
    "s",
    "i",
    "k",
    "é",
    "ß",
    "σ",
    "1",
    " ",
    r"\w",
    r"\W",
    r"\d",
    r"\D",
    r"\s",
    r"\S",
    ".",
    r"\.",
    r"\-",
    "[abc]",
    "[^abc]",
    "[a-f]",
    "[A-Z]",
    r"[\w-]",
    r"[\s\d]",
    r"[\W_]",
    "[]a]",
    "[^]a]",
    "(a|b)",
    "(?:ab|a)",
    "(a)",
    r"\b",
    r"\B",
    "^",
    "$",
    r"\A",
    r"\Z",
    "(?=a)",
    "(?!a)",
    "(?<=a)",
    "(?<!a)",
    "(?P<n>a)",
    "(?i:a)",
    "(?s:.)",
    "(?-i:a)",
    "(?>a+)",
    r"\x41",
    r"\u00e9",
    r"\n",
    r"\t",
    r"\0",
    r"\101",
    "{",
    "}",
    "]",
    "(?#c)",
    "K",
    "ſ",
    "İ",
    "µ",
    "[k-l]",
    "[ſ]",
    "[^s]",
]
REGEX_REFERENCES = [r"\1", "(?P=n)", r"(?(1)a|b)"]
REGEX_MISTAKES = [r"\q", "[z-a]", "*", "(", ")", r"\2", "(?P<n>b)", "a(?i)"]
PLACES = ("^", "$", r"\A", r"\Z", r"\b", r"\B", "(?#c)")
REGEX_QUANTIFIERS = [
    "",
    "",
    "",
    "",
    "",
    "*",
    "+",
    "?",
    "*?",
    "+?",
    "??",
    "{2}",
    "{1,2}",
    "{,2}",
    "{1,}",
    "++",
    "*+",
    "?+",
    "{1}+",
    "{a}",
    "{,}",
]


def expression(random):
    """An expression at random, mostly a valid one."""
    text = random.choice(["", "", "", "", "", "(?i)", "(?s)", "(?m)", "(?x)"])
    for _ in range(random.choice([1, 2, 2, 3, 4])):
        atom = random.choice(REGEX_ATOMS)
        if "(a" in text and random.random() < 0.2:
            atom = random.choice(REGEX_REFERENCES)
        if random.random() < 0.03:
            atom = random.choice(REGEX_MISTAKES)
        repeated = REGEX_QUANTIFIERS if atom not in PLACES or random.random() < 0.05 else [""]
        text += atom + random.choice(repeated) + random.choice(["", "", "", "|"])
    return text


def letters(random):
    alphabet = "aabbcdeskiKSIſıİKéÉßẞσςΣµμ12_-. \n\t\x1cABC٣²न्" + string.ascii_lowercase
    return "".join(random.choice(alphabet) for _ in range(random.choice([1, 3, 8, 20])))
