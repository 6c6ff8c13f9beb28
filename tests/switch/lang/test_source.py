"""The preprocessor: what is left of a program, and where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from switch.lang.errors import P4Error
from switch.lang.ir import Where
from switch.lang.source import read


def words(text: str, **defines: str | int) -> list[str]:
    return [token.text for token in read("f.p4", defines, {"f.p4": text}).tokens]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a /* b\n c */ d // e\nf", "a d f"),
        ("#define A 1\nA B A", "1 B 1"),
        ("#define A B\n#define B 2\nA", "2"),
        ("#define A A + 1\nA", "A + 1"),
        ("#define A 1\n#undef A\nA", "A"),
        ("A\n#define A 1\nA", "A 1"),
        ("#define A 1 + \\\n  2\nA", "1 + 2"),
        ("#define F(x, y) y x\nF(1, 2)", "2 1"),
        ("#define F(x) x\nF((1, 2)) F({3, 4})", "( 1 , 2 ) { 3 , 4 }"),
        ("#define F(x) x\nF (\n1\n)", "1"),
        ("#define F() 7\nF() F", "7 F"),
        ("#define F (x)\nF", "( x )"),
        ("#define F(x) x + x\n#define A 2\nF(F(A))", "2 + 2 + 2 + 2"),
        ("#define A 1\nh.A", "h . 1"),
        ("#ifdef A\n1\n#else\n2\n#endif", "2"),
        ("#define A\n#ifdef A\n1\n#else\n2\n#endif", "1"),
        ("#ifndef A\n1\n#endif\n2", "1 2"),
        ("#if 0\n1\n#elif 1\n2\n#elif 1\n3\n#else\n4\n#endif", "2"),
        ("#if 0\n#if 1\n1\n#else\n2\n#endif\n#error no\n#nonsense\n#endif\n3", "3"),
        ("#if 1\n1\n#else\n#error no\n#endif", "1"),
        ("#if 1\n1\n#elif 1 / 0\n2\n#endif", "1"),
        ("#\n#pragma once\n#line 7\n1", "1"),
        ("a//b", "a"),
        ("bit<bit<8>>", "bit < bit < 8 > >"),
        ("1..2 a&&&b a&&b 8w0xFf_0", "1 .. 2 a &&& b a && b 8w0xFf_0"),
        ('"a // \\" b"', '"a // \\" b"'),
    ],
)
def test_what_is_left(text: str, expected: str) -> None:
    assert " ".join(words(text)) == expected


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("defined(A) && !defined B", True),
        ("defined A && A == 8 && (A - 1) * 2 == 14", True),
        ("1 + 2 * 3 == 7 && 10 / 4 == 2 && 10 % 4 == 2", True),
        ("-1 < 0 || 1 / 0", None),
        ("(A & (A - 1)) == 0", True),
        ("A & 1", False),
        ("1 << 4 == 16 && 256 >> 4 == 16 && (5 | 2) == 7 && (5 ^ 1) == 4", True),
        ("0x10 == 16 && 0b11 == 3", True),
        ("unknown", False),
        ("F(2) > 3", True),
        ("2 <= 2 && 2 >= 2 && 2 != 3 && 3 > 2", True),
    ],
)
def test_conditions(condition: str, holds: bool | None) -> None:
    text = f"#define F(x) x * 2\n#if {condition}\nyes\n#else\nno\n#endif"
    if holds is None:  # nothing is left out of a condition: this is no language for that
        with pytest.raises(P4Error, match="division by zero"):
            words(text, A=8)
    else:
        assert words(text, A=8) == ["yes" if holds else "no"]


def test_each_token_knows_its_file_line_and_column(tmp_path: Path) -> None:
    main, part = tmp_path / "main.p4", tmp_path / "parts" / "part.p4"
    part.parent.mkdir()
    main.write_text('#include <core.p4>\n  a\n#include "parts/part.p4"\nF(b, c)\n')
    part.write_text("#ifndef PART\n#define PART\n#define F(x, y) (y)\n/* 1\n2 */ p\n#endif\n")
    read_ = read(main)
    assert read_.includes == ("core.p4",)
    assert [(token.text, token.where) for token in read_.tokens] == [
        ("a", Where(str(main), 2, 3)),
        ("p", Where(str(part), 5, 6)),
        ("(", Where(str(main), 4, 1)),  # of a macro: where it was used
        ("c", Where(str(main), 4, 6)),  # of an argument: where it was written
        (")", Where(str(main), 4, 1)),
    ]


def test_an_include_is_beside_the_file_that_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "main.p4").write_text('#include "a/b.p4"\n')
    (tmp_path / "a" / "b.p4").write_text('#include "c.p4"\n')
    (tmp_path / "a" / "c.p4").write_text("found\n")
    assert [token.text for token in read(tmp_path / "main.p4").tokens] == ["found"]


def test_texts_stand_in_place_of_files(tmp_path: Path) -> None:
    main = tmp_path / "main.p4"
    main.write_text('#include "part.p4"\n')
    texts = {str(tmp_path / "part.p4"): "changed"}
    assert [token.text for token in read(main, None, texts).tokens] == ["changed"]


def test_files_that_include_one_another_are_told() -> None:
    texts = {"a.p4": '#include "b.p4"', "b.p4": '#include "a.p4"'}
    with pytest.raises(P4Error, match="32 files include one another: a circle"):
        read("a.p4", None, texts)


def test_defines_are_macros_and_their_names_are_checked() -> None:
    assert words("SIZE", SIZE=8) == ["8"]
    assert words("SIZE", SIZE="4 + 4") == ["4", "+", "4"]
    with pytest.raises(ValueError, match="-D 8: expected a name"):
        read("f.p4", {"8": 1}, {"f.p4": ""})


def test_a_file_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    file = tmp_path / "latin.p4"
    file.write_bytes(b"// \xe9\n")
    with pytest.raises(P4Error, match="it is not UTF-8"):
        read(file)
