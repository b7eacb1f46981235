"""Invariants of reading CSV and TSV:

- what stands in a sound file arrives as written: NA, 007, empty cells, line breaks and quotes inside a cell;
- encoding and separator are found: BOM, UTF-16, Windows-1252, semicolons, tabs, bars;
- one broken record costs one row: it is named by line and reason, every other row arrives, with its own line number;
- the two readers agree: what `datasets` reads from a sound file is what the csv module reads from it;
- what cannot be read at all is refused with the reason.
"""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from dalr.data import delimited
from dalr.data.delimited import find_dialect, read_delimited
from dalr.data.records import Part
from dalr.errors import DataError


def read(tmp_path: Path, content: str | bytes, name: str = "d.csv", **options: str) -> Part:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_delimited(path, **options)


def test_cells_arrive_as_written(tmp_path: Path) -> None:
    part = read(tmp_path, 'id,text\n007,NA\n1e3,null\n3,\n4,"a\nb, ""c"""\n5, padded \n\n6,"1,5"\n')
    assert part.columns == {
        "id": ["007", "1e3", "3", "4", "5", "6"],
        "text": ["NA", "null", "", 'a\nb, "c"', " padded ", "1,5"],
    }
    assert part.rows == [2, 3, 4, 5, 7, 9]
    assert part.bad == part.notes == []


@pytest.mark.parametrize(
    ("encoding", "found"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"),
     ("utf-16-be", "utf-16-be"), ("utf-32", "utf-32"), ("cp1252", "cp1252"), ("latin-1", "cp1252")],
)  # fmt: skip
def test_encodings_are_found(tmp_path: Path, encoding: str, found: str) -> None:
    text = "image,title\na.jpg,Crème brûlée für zwei\nb.jpg,naïve café\n" * 20
    part = read(tmp_path, text.replace("image,title\n", "image,title\n", 1).encode(encoding))
    assert find_dialect(tmp_path / "d.csv").encoding == found
    assert list(part.columns) == ["image", "title"]
    assert part.columns["title"][:2] == ["Crème brûlée für zwei", "naïve café"]
    assert part.bad == []
    assert bool(part.notes) == (not found.startswith("utf-8")), "another encoding than UTF-8 is said"


@pytest.mark.parametrize(("separator", "name"), [(";", "d.csv"), ("\t", "d.csv"), ("|", "d.csv"), ("\t", "d.tsv"),
                                                 (",", "d.tsv")])  # fmt: skip
def test_separators_are_found(tmp_path: Path, separator: str, name: str) -> None:
    part = read(tmp_path, f'image{separator}"a, title"\nx.jpg{separator}"1{separator}2"\n', name)
    assert part.columns == {"image": ["x.jpg"], "a, title": [f"1{separator}2"]}
    usual = "\t" if name.endswith("tsv") else ","
    assert bool(part.notes) == (separator != usual)


def test_given_separator_and_encoding_win(tmp_path: Path) -> None:
    part = read(tmp_path, "a;b,c\n1;2,3\n", separator=";")
    assert part.columns == {"a": ["1"], "b,c": ["2,3"]}
    part = read(tmp_path, "a,b\nв,г\n".encode("cp1251"), encoding="cp1251")
    assert part.columns == {"a": ["в"], "b": ["г"]}
    with pytest.raises(DataError, match="'klingon' is not known"):
        read(tmp_path, "a,b\n1,2\n", encoding="klingon")


HOSTILE = b"""image,text
0.jpg,good zero
1.jpg
2.jpg,two,too many
3.jpg,good three,,
4.jpg,"never closed
5.jpg,good five
6.jpg,"good, six"
7.jpg,"broken "quote" here"
8.jpg,nul \x00 byte
9.jpg,caf\xc3\xa9 good nine
10.jpg,bad byte \xe9 here

11.jpg,"good
eleven"
12.jpg,"odd one
13.jpg,good thirteen
14.jpg,"last, never closed
"""


def test_a_broken_record_costs_one_row(tmp_path: Path) -> None:
    part = read(tmp_path, HOSTILE)
    good = {2: "good zero", 5: "good three", 7: "good five", 8: "good, six", 11: "café good nine",
            14: "good\neleven", 17: "good thirteen"}  # fmt: skip
    assert dict(zip(part.rows, part.columns["text"], strict=True)) == good
    assert part.columns["image"] == ["0.jpg", "3.jpg", "5.jpg", "6.jpg", "9.jpg", "11.jpg", "13.jpg"]
    reasons = {bad.row: bad.reason for bad in part.bad}
    assert set(reasons) == {3, 4, 6, 9, 10, 12, 16, 18}
    assert reasons[3] == "has 1 field, the header has 2"
    assert reasons[4] == "has 3 fields, the header has 2"
    for line in (6, 16, 18):
        assert reasons[line] == "opens a quote that is never closed"
    assert "quote inside a quoted field" in reasons[9]
    assert reasons[10] == "holds a NUL byte"
    assert reasons[12] == "holds the byte 0xe9, which is not UTF-8"
    assert part.bad[0].where == "d.csv:3"


def test_a_field_beyond_the_limit(tmp_path: Path) -> None:
    part = read(tmp_path, f"a,b\n1,{'x' * 200_000}\n2,y\n")
    assert part.rows == [3]
    assert "longer than 131,072" in part.bad[0].reason


def test_thousands_of_open_quotes_do_not_take_for_ever(tmp_path: Path) -> None:
    part = read(tmp_path, "a,b\n" + '1,"open\n2,closed"x\n' * 3_000)
    assert len(part.bad) + len(part.rows) == 6_000


def test_tsv_without_quoting(tmp_path: Path) -> None:
    part = read(tmp_path, 'image\ttext\na.jpg\t"The Best" shirt\nb.jpg\t5" heel\nc.jpg\t"\n', "d.tsv")
    assert part.columns["text"] == ['"The Best" shirt', '5" heel', '"']
    assert part.notes == ["d.tsv: quotes are taken as they stand; as quoting they would have cost rows"]
    assert part.bad == []


def test_headers(tmp_path: Path) -> None:
    part = read(tmp_path, ",image, title \n0,a.jpg,x\n")
    assert part.columns == {"column 1": ["0"], "image": ["a.jpg"], "title": ["x"]}
    with pytest.raises(DataError, match=r"d.csv:1: the column 'text' is given twice"):
        read(tmp_path, "text,image,text\n1,2,3\n")
    with pytest.raises(DataError, match=r"d.csv:1: the header opens a quote"):
        read(tmp_path, '"text,image\n1,2\n')
    with pytest.raises(DataError, match="only blank lines"):
        read(tmp_path, "\n\n\n")
    assert read(tmp_path, "\n\nimage,text\na,b\n").rows == [4]
    assert read(tmp_path, "image,text\n").rows == []


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        read(tmp_path, "")
    with pytest.raises(DataError, match="No such file"):
        read_delimited(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        read_delimited(tmp_path / "folder.csv")


def test_both_readers_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    pieces = [
        "red",
        "",
        "a,b",
        'say "x"',
        "two\nlines",
        "NA",
        "1.0",
        "é",
        " ",
        "#",
        "'",
        "\\",
        "\t",
        ";",
        "nan",
        "\u2028",
        "\r\n",
        "\r",
    ]
    rows = [[str(generator.choice(pieces)) + str(generator.choice(pieces)) for _ in range(3)] for _ in range(400)]
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([["a", "b", "c"], *rows])
    content = buffer.getvalue()
    returned = []
    real = delimited._through_datasets
    monkeypatch.setattr(delimited, "_through_datasets", lambda *a: returned.append(real(*a)) or returned[-1])
    through = read(tmp_path, content)
    assert returned[0] == through.columns, "vacuous unless it is the other reader's result that was taken"
    monkeypatch.setattr(delimited, "_through_datasets", lambda *args: None)
    alone = read(tmp_path, content)
    assert through.columns == alone.columns
    assert through.rows == alone.rows
    assert list(zip(*alone.columns.values(), strict=True)) == [tuple(row) for row in rows]


def test_datasets_is_what_reads_a_sound_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = delimited.read_columns
    monkeypatch.setattr(delimited, "read_columns", lambda *a, **k: seen.append(a[0]) or real(*a, **k))
    for name in ("d.csv", "odd [1] {2} *name?.csv", "d#1.csv", "100%.csv"):
        part = read(tmp_path, "a,b\n1,2\n", name)
        assert part.columns == {"a": ["1"], "b": ["2"]}
    assert seen == ["csv"] * 4
    read(tmp_path, HOSTILE)
    assert len(seen) == 4
