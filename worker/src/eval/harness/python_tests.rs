//! What templates print, against what Jinja 3.1.6 prints on Python 3.11: every expected text below is the output of
//! `lm_eval.utils.apply_template(template, row)` for the row of [`check`].

use serde_json::json;

use super::template::{Rule, Templates};

fn check(cases: &[(&str, &str)]) {
    let row = json!({
        "t": " it's a TEST\tok ", "w": "abc", "f": [1e-7, 1e16, 0.1, 1.5e300], "x": 2.0, "b": true, "n": null,
        "d": {"b": 1, "a": ["é", "<&'>"]}, "l": ["x", "y z"], "u": "naïve \u{1f600} a/b?c=d&e",
        "s": "The quick brown fox jumps over",
    });
    let templates = Templates::default();
    for (template, expected) in cases {
        let found = Rule::template(template)
            .value(&templates, &row)
            .map(|value| crate::eval::python::text_of(&value));
        assert_eq!(found.as_deref(), Ok(*expected), "{template}");
    }
}

#[test]
fn numbers_and_containers_print_as_in_python() {
    check(&[
        (
            "{{f}} {{f[0]}} {{f[1]}} {{x}} {{x/3}}",
            "[1e-07, 1e+16, 0.1, 1.5e+300] 1e-07 1e+16 2.0 0.6666666666666666",
        ),
        (
            "{{0.1+0.2}} {{7//2}} {{7/2}} {{6/2}} {{2**70}}",
            "0.30000000000000004 3 3.5 3.0 1180591620717411303424",
        ),
        ("{{(1,2)}} {{(1,)}} {{[('a',1.0)]}}", "(1, 2) (1,) [('a', 1.0)]"),
        ("{{'\u{1f} a \u{1c}'|trim}}{{'xax'|trim('x')}}{{'\u{1e}a'.lstrip()}}", "aaa"),
        ("{{'a\u{1f}b c'.split()}} {{'\u{1f}'.isspace()}} {{''.isspace()}}", "['a', 'b', 'c'] True False"),
        ("{{'oNE-two\u{1c}three (ΟΔΟΣ <x ŉ'|title}} {{12|title}}", "One-Two\u{1c}Three (Οδος <X ʼN 12"),
        (r#"{{"<a href='x/y'>"|e}} {{'"'|escape}}"#, "&lt;a href=&#39;x/y&#39;&gt; &#34;"),
        ("{{(1,2)}}", "(1, 2)"),
        (
            "{{range(3)}} {{range(1,9,3)}} {{range(3)|list}} {{range(5)|length}} {{range(9)[2]}} {{range(5,0,-2)|list}}",
            "range(0, 3) range(1, 9, 3) [0, 1, 2] 5 2 [5, 3, 1]",
        ),
        ("{{range(3)}}", "range(0, 3)"),
        (
            "{{d.items()}} {{d.keys()}} {{d.values()}}",
            "dict_items([('b', 1), ('a', ['é', \"<&'>\"])]) dict_keys(['b', 'a']) dict_values([1, ['é', \"<&'>\"]])",
        ),
        ("{{d.items()}}", "dict_items([('b', 1), ('a', ['é', \"<&'>\"])])"),
        (
            "{{d.items()|list}} {{d|items|list}}",
            "[('b', 1), ('a', ['é', \"<&'>\"])] [('b', 1), ('a', ['é', \"<&'>\"])]",
        ),
        ("{% for k, v in d.items() %}{{k}}={{v}};{% endfor %}", "b=1;a=['é', \"<&'>\"];"),
        (
            "{{d}} {{l}} {{n}} {{b}} {{[n, b]}}",
            "{'b': 1, 'a': ['é', \"<&'>\"]} ['x', 'y z'] None True [None, True]",
        ),
        ("{{f[0]}}", "1e-07"),
        ("{{f}}", "[1e-07, 1e+16, 0.1, 1.5e+300]"),
        ("{{'x\u{a0}\u{200b}'}}{{['x\u{a0}\u{200b}']}}", "x\u{a0}\u{200b}['x\\xa0\\u200b']"),
        (
            "{{d.keys()|join('-')}} {{f|join(' ')}} {{[1,none,'a']|join}} {{[d,d]|join(', ', attribute='b')}}",
            "b-a 1e-07 1e+16 0.1 1.5e+300 1Nonea 1, 1",
        ),
        ("{{f[0]|string}}|{{n|string}}", "1e-07|None"),
    ]);
}

#[test]
fn json_is_that_of_jinja() {
    check(&[
        ("{{d|tojson}}", "{\"a\": [\"\\u00e9\", \"\\u003c\\u0026\\u0027\\u003e\"], \"b\": 1}"),
        (
            "{{f|tojson}} {{b|tojson}} {{n|tojson}} {{(1,2)|tojson}}",
            "[1e-07, 1e+16, 0.1, 1.5e+300] true null [1, 2]",
        ),
        (
            "{{d|tojson(indent=2)}}",
            "{\n  \"a\": [\n    \"\\u00e9\",\n    \"\\u003c\\u0026\\u0027\\u003e\"\n  ],\n  \"b\": 1\n}",
        ),
        ("{{[]|tojson(indent=2)}}{{ {} |tojson}}{{[[1],[]]|tojson(1)}}", "[]{}[\n [\n  1\n ],\n []\n]"),
        (
            "{{u|tojson}} {{t|tojson}} {{'\"\\\\'|tojson}}",
            "\"na\\u00efve \\ud83d\\ude00 a/b?c=d\\u0026e\" \" it\\u0027s a TEST\\tok \" \"\\\"\\\\\"",
        ),
    ]);
}

#[test]
fn texts_have_pythons_methods() {
    check(&[
        (
            "{{'a-b-c'.partition('-')}} {{'a-b-c'.rpartition('-')}} {{'abc'.partition('-')}} {{'abc'.rpartition('-')}}",
            "('a', '-', 'b-c') ('a-b', '-', 'c') ('abc', '', '') ('', '', 'abc')",
        ),
        (
            "{{'42'.zfill(5)}} {{'-42'.zfill(5)}} {{'+'.zfill(3)}} {{''.zfill(2)}} {{'abc'.zfill(2)}}",
            "00042 -0042 +00 00 abc",
        ),
        (
            "{{'aBc é'.swapcase()}} {{\"it's o'clock 3rd\".title()}} {{'ÀB'.capitalize()}} {{'ABC'.casefold()}}",
            "AbC É It'S O'Clock 3Rd Àb abc",
        ),
        (
            "{{'abcabc'.removeprefix('abc')}} {{'abcabc'.removesuffix('bc')}} {{w.removeprefix('x')}}",
            "abc abca abc",
        ),
        (
            "{{'a b  c'.rsplit()}} {{' a b  c '.rsplit(none, 1)}} {{'a,b,c'.rsplit(',', 1)}} {{'a,b,c'.rsplit(',')}}",
            "['a', 'b', 'c'] [' a b', 'c'] ['a,b', 'c'] ['a', 'b', 'c']",
        ),
        (
            "[{{w.center(8)}}] [{{w.center(9, '*')}}] [{{'ab'.center(5)}}] [{{w.ljust(5)}}] [{{w.rjust(5, '.')}}] [{{w.center(2)}}]",
            "[  abc   ] [***abc***] [  ab ] [abc  ] [..abc] [abc]",
        ),
        (
            "{{w.index('c')}} {{'abcabc'.index('c', 3)}} {{'abcabc'.rindex('b')}} {{'abcabc'.find('b', 2)}} {{w.find('z')}} {{'éa'.find('a')}} {{'abcabc'.find('a', -3)}} {{'abcabc'.rfind('c', 0, 4)}} {{'aXbX'.count('X')}} {{'aXbX'.count('X', 2)}} {{'abc'.find('c', 9)}}",
            "2 5 4 4 -1 1 3 2 2 1 -1",
        ),
        ("{{'a\nb\r\nc\u{b}d\n'.splitlines()}} {{''.splitlines()}}", "['a', 'b', 'c', 'd'] []"),
        (
            "{{'a.b.c'.replace('.', '-', 1)}} {{'aaa'|replace('a', 'b', 2)}} {{'aaa'|replace('a', 'b')}} {{12|replace(1, 'x')}}",
            "a-b.c bba bbb x2",
        ),
        (
            "{{'\u{1c} a \u{1f}'.strip()}}|{{' a '.lstrip()}}|{{' a '.rstrip()}}|{{'xax'.strip('x')}}",
            "a|a | a|a",
        ),
        ("{{'%s is %d'|format('x', 3)}} {{'{} {:.2f}'.format('a', 2)}}", "x is 3 a 2.00"),
    ]);
}

#[test]
fn filters_are_jinjas() {
    check(&[
        ("{{s|wordcount}} {{'a_b c-d é1'|wordcount}}", "6 4"),
        (
            "{{s|truncate(20)}}|{{s|truncate(20, true)}}|{{s|truncate(20, false, '!', 0)}}|{{s|truncate(28)}}|{{s|truncate(length=10, leeway=0, end='')}}|{{'abcdefghijkl'|truncate(5)}}",
            "The quick brown...|The quick brown f...|The quick brown!|The quick brown fox jumps over|The quick|ab...",
        ),
        ("[{{w|center(9)}}] [{{5|center(4)}}]", "[   abc   ] [ 5  ]"),
        (
            "{{u|urlencode}} {{ {'a b': 'c/d', 'e': 1} |urlencode}} {{[('x','é'),('y',2)]|urlencode}}",
            "na%C3%AFve%20%F0%9F%98%80%20a/b%3Fc%3Dd%26e a+b=c%2Fd&e=1 x=%C3%A9&y=2",
        ),
    ]);
}
