"""Broken schemas: what is wrong, the line that the error has to name, and words of the problem and the remedy.

Those who write one by hand make such mistakes; those who publish one may want a command to hang or to run code.
"""

_A = "version: 1\nattributes:\n"
_U = "version: 1\nunits:\n"
_Q = "attributes:\n  a: {kind: quantity, units: w}\n"
_G = _U + "  w: {g: {size: 1}}\n"


def _attribute(fields: str, name: str = "a") -> str:
    return f"{_A}  {name}: {{{fields}}}\n"


def _pattern(text: str) -> str:
    return f"{_A}  a:\n    kind: pattern\n    pattern: '{text}'\n"


# Name -> (content, line, words of the error).
BROKEN: dict[str, tuple[str | bytes, int, tuple[str, ...]]] = {
    # YAML
    "nothing": ("", 1, ("empty", "write its fields")),
    "only a comment": ("# x\n", 1, ("empty", "write its fields")),
    "a list": ("- a\n", 1, ("a list", "`name: value` lines")),
    "a text": ("hello\n", 1, ("'hello'", "`name: value` lines")),
    "an alias": (_A + "  a: &x {kind: text}\n  b: *x\n", 3, ("`&` and `*`", "write the value out")),
    "a merge key in an attribute": (_A + "  a: {kind: text}\n  b: {<<: x, kind: text}\n", 4, ("`<<`", "write the")),
    "a merge key in units": (_U + "  <<: {g: {size: 1}}\n" + _Q, 3, ("`<<`", "write the fields out")),
    "a merge key in values": (_attribute("kind: choice, values: {<<: [x], b: }"), 3, ("`<<`", "write the fields")),
    "a tag that runs code": (_A + "  a: !!python/object/apply:os.system [ls]\n", 3, ("os.system", "remove it")),
    "a harmless tag": (_attribute("kind: !!str text"), 3, ("the tag", "remove it, or quote")),
    "two documents": (_A + "  a: {kind: text}\n---\nx: 1\n", 4, ("a second document", "remove its line `---`")),
    "another YAML": ("%YAML 3.0\n---\n" + _A, 1, ("incompatible", "look at this line")),
    "a tab": (_A + "\ta: {kind: text}\n", 3, ("cannot start any token", "indent with spaces")),
    "an open bracket": (_A + "  a: {kind: text\n", 4, ("not YAML", "look at this line and the one above")),
    "two colons": (_attribute("kind: choice, values: [a: b: c]"), 3, ("not YAML", "quote texts")),
    "nested deep": (_A + "  a: " + "[" * 50 + "]" * 50 + "\n", 3, ("nested deeper", "flatter")),
    "a million brackets": (_A + "  a: " + "[" * 900_000, 3, ("not YAML", "look at")),
    "a list as a key": (_A + "  ? [a, b]\n  : {kind: text}\n", 3, ("a key that is not a text", "quote it")),
    "NUL": (_A + "  a\x00: {kind: text}\n", 3, ("U+0000", "remove it")),
    "NUL after many umlauts": (_A + f"  b: {{kind: text}}\n# {'ä' * 200}\n#\n  c\x00: 1\n", 6, ("U+0000", "remove")),
    "NUL, escaped": (_A + '  "a\\0": {kind: text}\n', 3, ("U+0000", "remove it")),
    "a lone surrogate": (_A + "  \ud800: {kind: text}\n", 3, ("U+D800", "remove it")),
    "a lone surrogate, escaped": (_A + '  "\\ud800": {kind: text}\n', 3, ("invalid Unicode", "look at this")),
    "latin-1": ((_A + "  a: {kind: text}\n  gr\xf6sse: {kind: text}\n").encode("latin1"), 4, ("UTF-8", "save")),
    "UTF-16": (_A.encode("utf-16"), 1, ("not UTF-8", "save the file as UTF-8")),
    "UTF-16 without a mark": (_A.encode("utf-16-le"), 1, ("U+0000", "remove it")),
    "too large": (_A + "#" * 1_000_000, 1, ("more than 1000000", "smaller")),
    "too many values": ("a: [" + "b,\n" * 30_000 + "]", 19_998, ("more than 20000 values", "smaller")),
    "80,000 keys": ("".join(f"a{number}: b\n" for number in range(80_000)), 10_000, ("20000 values", "smaller")),
    # The document
    "no version": ("attributes:\n  a: {kind: text}\n", 1, ("`version` is missing", "add `version:`")),
    "version 2": ("# x\nversion: 2\nattributes:\n  a: {kind: text}\n", 2, ("'2'", "write 1, or update")),
    "version 1.0": ("version: 1.0\nattributes:\n  a: {kind: text}\n", 1, ("'1.0'", "write 1, or update")),
    "attributes missing": ("version: 1\n", 1, ("`attributes` is missing", "add `attributes:`")),
    "attributes without any": (_A, 2, ("empty", "`name: value` lines")),
    "an empty mapping of attributes": ("version: 1\nattributes: {}\n", 2, ("0 attributes", "write 1 to 200")),
    "201 attributes": (
        _A + "".join(f"  a{number}: {{kind: text}}\n" for number in range(201)), 2, ("201 attributes", "1 to 200"),
    ),
    "an unknown field at the top": (_A + "  a: {kind: text}\nunit: x\n", 4, ("'unit'", "version, units, attrib")),
    # Names
    "a name twice": (_A + "  a: {kind: text}\n  a: {kind: text}\n", 4, ("(first on line 3)", "rename or remove")),
    "a long name twice": (_A + ("  " + "a" * 1000 + ": {kind: text}\n") * 2, 4, ("occurs twice", "rename or remove")),
    "a name twice but for case": (_A + "  colour: {kind: text}\n  Colour: {kind: text}\n", 4, ("'colour'", "rename")),
    "a name twice but for _": (_A + "  a b: {kind: text}\n  a_b: {kind: text}\n", 4, ("the same but", "rename one")),
    "a name twice but for width": (_A + "  size: {kind: text}\n  ｓize: {kind: text}\n", 4, ("same but", "rename")),
    "a column as a name": (_attribute("kind: text", "image"), 3, ("of the dataset itself", "rename the attribute")),
    "a column with spaces": (_attribute("kind: text", "Entity Name"), 3, ("of the dataset itself", "rename")),
    "a split as a name": (_attribute("kind: text", "Train"), 3, ("of the dataset itself", "rename the attribute")),
    "a comma in a name": (_attribute("kind: text", "'a,b'"), 3, ("','", "use letters, digits")),
    "a formula as a name": (_attribute("kind: text", "'=1+A1'"), 3, ("'='", "use letters, digits")),
    "a path as a name": (_attribute("kind: text", "../../etc/passwd"), 3, ("begins with '.'", "with a letter")),
    "an option as a name": (_attribute("kind: text", "--help"), 3, ("begins with '-'", "with a letter")),
    "a token as a name": (_attribute("kind: text", "'<image>'"), 3, ("a token of the model", "without < and >")),
    "a number as a name": (_attribute("kind: text", "12"), 3, ("no letter", "by a word")),
    "an empty name": (_attribute("kind: text", "''"), 3, ("the name is empty", "write it")),
    "a long name": (_attribute("kind: text", "a" * 65), 3, ("65 characters", "shorten it")),
    "two scripts in a word": (_attribute("kind: text", "c\u043elour"), 3, ("Latin and Cyrillic", "in one script")),
    "a combining accent": (_attribute("kind: text", "cafe\u0301"), 3, ("not composed", "NFC")),
    "a first combining accent": (_attribute("kind: text", "\u0301a"), 3, ("begins with the combining", "remove it")),
    "a zero-width space": (_attribute("kind: text", '"co\u200blour"'), 3, ("U+200B", "remove it")),
    "a filler that is a letter": (_attribute("kind: text", "colour\u3164"), 3, ("U+3164", "remove it")),
    "text from right to left": (_attribute("kind: text", '"a\u202eb"'), 3, ("U+202E", "remove it")),
    "a control character": (_attribute("kind: text", '"a\\x07"'), 3, ("U+0007", "remove it")),
    # Kinds and fields
    "no kind": (_A + "  a:\n    question: x\n", 3, ("`kind` is missing", "quantity, integer, choice")),
    "an unknown kind": (_A + "  a:\n    kind: number\n", 4, ("'number'", "quantity, integer, choice")),
    "a list of kinds": (_attribute("kind: [text]"), 3, ("a list", "write one value")),
    "a text as an attribute": (_A + "  a: text\n", 3, ("'text'", "`name: value` lines")),
    "a field of another kind": (_A + "  a:\n    kind: text\n    digits: 3\n", 5, ("'digits'", "max_length")),
    "a flag that YAML reads as true": (_attribute("kind: integer, signed: yes"), 3, ("'yes'", "write one of them")),
    "a long flag": (_attribute(f"kind: integer, signed: {'y' * 9999}"), 3, ("true or false", "write one of them")),
    "missing_is_not_shown alone": (
        _A + "  a:\n    kind: text\n    missing_is_not_shown: true\n", 5, ("`not_shown: true`", "add that"),
    ),
    "digits: 0": (_attribute("kind: integer, digits: 0"), 3, ("1 to 15", "whole number")),
    "max_length: 0": (_attribute("kind: text, max_length: 0"), 3, ("1 to 200", "whole number")),
    "max_length: 201": (_attribute("kind: text, max_length: 201"), 3, ("1 to 200", "whole number")),
    # Questions
    "a question twice": (
        _A + "  a: {kind: text, question: What?}\n  b: {kind: text, question: what?}\n", 4, ("of a", "of its own"),
    ),
    "another brace": (_attribute("kind: text, question: 'What {x}?'"), 3, ("'{'", "only {name}")),
    "a brace that Python would follow": (_attribute("kind: text, question: '{name.__class__}'"), 3, ("'{'", "only")),
    "an open brace": (_attribute("kind: text, question: 'What {name?'"), 3, ("'{'", "only {name} is replaced")),
    "a token in a question": (_attribute("kind: text, question: 'What <image>?'"), 3, ("token", "without < and >")),
    "an empty question": (_attribute("kind: text, question: "), 3, ("the question is empty", "remove its line")),
    "a question of two lines": (
        _A + "  a:\n    kind: text\n    question: |\n      What\n      is it?\n", 5, ("a space", "on one line"),
    ),
    "a question that names itself often": (
        _attribute("kind: text, question: '{name}{name}{name}{name}'", "a" * 60), 3, ("240 characters", "shorten it"),
    ),
    # Values
    "no values": (_attribute("kind: choice"), 3, ("`values` is missing", "add `values:`")),
    "one value": (_attribute("kind: choice, values: [red]"), 3, ("1 values", "write 2 to 1000")),
    "1001 values": (
        _attribute(f"kind: choice, values: [{', '.join(map(str, range(1001)))}]"), 3, ("1001 values", "2 to 1000"),
    ),
    "a value twice": (_A + "  a:\n    kind: choice\n    values:\n      - red\n      - red\n", 7, ("twice", "remove")),
    "a value twice but for case": (
        _A + "  a:\n    kind: choice\n    values:\n      - red\n      - RED\n", 7, ("'red' and 'RED'", "remove it"),
    ),
    "a synonym of two values": (
        _A + "  a:\n    kind: choice\n    values:\n      navy: [dark blue]\n      blue: [DARK blue]\n",
        7, ("'navy' and 'blue'", "remove it from one"),
    ),
    "a synonym that is another value": (
        _A + "  a:\n    kind: choice\n    values:\n      navy:\n        - Blue\n      blue:\n",
        7, ("'navy'", "remove it"),
    ),
    "a list in values": (_attribute("kind: choice, values: [[x], y]"), 3, ("a list", "write one value")),
    "a number of synonyms": (_attribute("kind: choice, values: {x: 3, y: }"), 3, ("'3'", "write [one, two]")),
    "101 synonyms": (
        _attribute(f"kind: choice, values: {{x: [{', '.join(f's{number}' for number in range(101))}], y: }}"),
        3, ("101 synonyms", "at most 100"),
    ),
    "a separator in a value": (_attribute("kind: multi_choice, values: [a/b, c]"), 3, ("separator", "rename it")),
    "`and` in a synonym": (
        _attribute("kind: multi_choice, values: {a: [salt AND pepper], c: }"), 3, ("separator", "rename it"),
    ),
    "65 of several values": (
        _attribute(f"kind: multi_choice, values: [{', '.join(f'v{number}' for number in range(65))}]"),
        3, ("65 values", "write 2 to 64"),
    ),
    "a long value": (_attribute(f"kind: choice, values: [{'x' * 65}, y]"), 3, ("65 characters", "shorten it")),
    "the end token as a value": (_attribute("kind: choice, values: [<eos>, y]"), 3, ("token", "without < and >")),
    "a missing value as a value": (_attribute("kind: choice, values: [NaN, y]"), 3, ("missing value", "rename it")),
    "yes that means no": (_A + "  a:\n    kind: yes_no\n    yes: [ja, No]\n", 5, ("'no' and 'yes'", "remove it")),
    # Units
    "no units": (_attribute("kind: quantity"), 3, ("`units` is missing", "add `units:`")),
    "units that are not there": (_attribute("kind: quantity, units: w"), 3, ("not a dimension", "add `units:`")),
    "an unknown dimension": (_G + "attributes:\n  a: {kind: quantity, units: x}\n", 5, ("'x'", "use one of w")),
    "an unknown unit": (_G + "attributes:\n  a: {kind: quantity, units: [kg]}\n", 5, ("'kg'", "add it there")),
    "a list without units": (_G + "attributes:\n  a: {kind: quantity, units: []}\n", 5, ("no unit", "one dimension")),
    "a unit twice in a list": (_G + "attributes:\n  a: {kind: quantity, units: [g, g]}\n", 5, ("twice", "remove one")),
    "units of two dimensions": (
        _U + "  w: {g: {size: 1}}\n  l: {m: {size: 1}}\nattributes:\n  a: {kind: quantity, units: [g, m]}\n",
        6, ("g (w) and m (l)", "units of one dimension"),
    ),
    "an empty dimension": (_U + "  w: {}\n" + _Q, 3, ("0 units", "at least one")),
    "no size": (_U + "  w: {g: {}}\n" + _Q, 3, ("`size` is missing", "add `size:`")),
    "size 0": (_U + "  w: {g: {size: 0.0}}\n" + _Q, 3, ("'0.0'", "1000, or 0.001")),
    "size -1": (_U + "  w: {g: {size: -1}}\n" + _Q, 3, ("'-1'", "1000, or 0.001")),
    "size 1e3": (_U + "  w: {g: {size: 1e3}}\n" + _Q, 3, ("'1e3'", "without an exponent")),
    "size 1,5": (_U + "  w: {g: {size: '1,5'}}\n" + _Q, 3, ("'1,5'", "1000, or 0.001")),
    "size in other digits": (_U + "  w: {g: {size: ٣}}\n" + _Q, 3, ("'٣'", "1000, or 0.001")),
    "size inf": (_U + "  w: {g: {size: .inf}}\n" + _Q, 3, ("'.inf'", "1000, or 0.001")),
    "a spelling of two units": (
        _U + "  w:\n    gram: {size: 1, spellings: [g]}\n    gallon:\n      size: 4\n      spellings:\n        - g\n"
        + _Q, 8, ("'g' means gram", "remove it from one"),
    ),
    "a unit in two dimensions": (
        _U + "  w: {oz: {size: 1}}\n  v: {oz: {size: 1}}\n" + _Q, 4, ("'oz' means oz", "remove it from one"),
    ),
    "micro with two signs": (_U + "  w: {µg: {size: 1}, μg: {size: 2}}\n" + _Q, 3, ("means µg", "from one of the")),
    "the sign of the ohm": (_U + "  w: {\u2126: {size: 1}}\n" + _Q, 3, ("not composed", "NFC")),
    "a spelling twice": (_U + "  w: {gram: {size: 1, spellings: [g, g]}}\n" + _Q, 3, ("occurs twice", "remove one")),
    "a unit that begins like a number": (_U + "  w: {2g: {size: 1}}\n" + _Q, 3, ("'2g'", "another character")),
    "an unknown field of a unit": (_U + "  w: {g: {size: 1, factor: 2}}\n" + _Q, 3, ("'factor'", "size, spellings")),
    "501 units": (
        _U + "  w: {" + ", ".join(f"u{number}: {{size: 1}}" for number in range(501)) + "}\n" + _Q,
        3, ("more than 500 units", "remove those"),
    ),
    "decimals: -1": (_G + "attributes:\n  a: {kind: quantity, units: w, decimals: -1}\n", 5, ("0 to 15", "whole")),
    "decimals: 16": (_G + "attributes:\n  a: {kind: quantity, units: w, decimals: 16}\n", 5, ("0 to 15", "whole")),
    "decimals: 1e1": (_G + "attributes:\n  a: {kind: quantity, units: w, decimals: 1e1}\n", 5, ("'1e1'", "whole")),
    "decimals in other digits": (
        _G + "attributes:\n  a: {kind: quantity, units: w, decimals: ٣}\n", 5, ("'٣'", "whole number"),
    ),
    # Patterns
    "any number of times": (_pattern("A*"), 5, ("`*` has no greatest length", "such as {0,10}")),
    "any character": (_pattern("A.B"), 5, ("`.` matches any character", "such as [A-Z0-9]")),
    "an anchor": (_pattern("^A$"), 5, ("`^` is not needed", "write `\\^`")),
    "an empty pattern": (_pattern(""), 5, ("it is empty", "such as [A-Z]{2}[0-9]{4}")),
    "an empty answer": (_pattern("a?"), 5, ("an empty answer", "`not_shown: true`")),
    "an empty group": (_pattern("a(){64}"), 5, ("a group without characters", "remove it")),
    "a space at the end": (_pattern("[A-Z]{2}( [0-9]?)?"), 5, ("end with a space", "move the space")),
    "states that explode": (_pattern("(a|b){0,20}a(a|b){20}"), 5, ("more than 4000 states", "repetitions shorter")),
    "steps that explode": (
        _pattern("(" + "|".join(f"[!-{chr(code)}]?" for code in range(0x5F, 0x7E)) + "){63}b"),
        5, ("too many steps", "shorter"),
    ),
    "repetitions that explode": (_pattern("((a?){20}){20}"), 5, ("400 characters", "repetitions shorter")),
    "patterns that explode together": (
        _A + "".join(f"  a{number}: {{kind: pattern, pattern: 'x([!-~]?[!-~]?|[!-~]?[a-z]?){{30}}'}}\n"
                     for number in range(60)), 25, ("take too long", "simplify"),
    ),
    "a reference back": (_pattern("(a)\\1"), 5, ("`\\1` is not supported", "write the characters out")),
    "a look ahead": (_pattern("(?=a)a"), 5, ("`(?`", "write (...)")),
    "a class of its own": (_pattern("\\d{3}"), 5, ("`\\d` is not supported", "[0-9] for \\d")),
    "all other characters": (_pattern("[^a]"), 5, ("`[^...]`", "write those that occur")),
    "an open group": (_pattern("(a"), 5, ("`(` is not closed", "add `)`")),
    "a closed group": (_pattern("a)"), 5, ("`)` closes no group", "write `\\)`")),
    "an open class": (_pattern("[a"), 5, ("`[` is not closed", "add `]`")),
    "a range backwards": (_pattern("[z-a]"), 5, ("z-a is empty", "exchange its ends")),
    "a long range": (_pattern("[一-鿿]"), 5, ("more than 200", "shorten it")),
    "an operator of other languages": (_pattern("[a-z--b]"), 5, ("`--` in a class", "`\\-` for")),
    "an open repetition": (_pattern("a{3,}"), 5, ("both bounds", "{1,4}")),
    "a repetition twice": (_pattern("a{3}{3}"), 5, ("a repetition of a repetition", "into a group")),
    "a long answer": (_pattern("a{64}a"), 5, ("65 characters", "shorter")),
    "deep groups": (_pattern("(" * 100 + "a" + ")" * 100), 5, ("nested deeper than 20", "simplify it")),
    "a long pattern": (_pattern("[a]" * 167), 5, ("501 characters", "shorten it")),
    "a zero-width character": (_pattern("a\u200b"), 5, ("not printable", "remove it")),
    "an escaped line break": (_attribute('kind: pattern, pattern: "\\\\\\n"'), 3, ("printable", "remove")),
    "a combining character in a pattern": (_pattern("cafe\u0301"), 5, ("not composed", "NFC")),
}  # fmt: skip
