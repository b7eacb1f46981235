"""Training sets of texts alone.

Invariant: what is one product, one group or one text in the data is never a negative of itself, whichever kind of file
the texts come from; rows keep their weights and scores.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dalr.config import parse_config
from dalr.losses import same_group
from dalr.objectives import Rows
from dalr.run import RunConfig
from dalr.run.assembly import assemble

TEXT = {"name": "new", "train": "full", "new": {"layers": 1, "width": 16, "heads": 2, "vocab_size": 100}}


def text_set(data: dict[str, Any], objective: str) -> Rows:
    train = {"steps": 1, "batch_size": 2}
    values = {"data": data, "model": {"text": TEXT}, "objective": {"name": objective}, "train": train}
    rows: Rows = assemble(parse_config(RunConfig, values)).data.rows["text"]
    return rows


def together(rows: Rows) -> list[list[int]]:
    same = ((rows.ids_NK[:, None] == rows.ids_NK) & (rows.ids_NK >= 0)[:, None]).any(-1)
    return np.argwhere(np.triu(same, 1)).tolist()


def test_captions_keep_groups_and_weights(tmp_path: Path) -> None:
    path = tmp_path / "products.csv"
    path.write_text(
        "image,text,group,weight\n1.jpg,a,g,1\n2.jpg,b,g,0.5\n3.jpg,c,,1\n3.jpg,,,1\n3.jpg,d,,2\n4.jpg,C,,1\n"
    )
    rows = text_set({"train": str(path)}, "simcse")
    assert together(rows) == [[0, 1], [2, 3], [2, 4]]
    assert rows.weight_N.tolist() == [1, 0.5, 1, 2, 1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("anchor,positive,negative\na,b,z\nB,c,z\nd,e,z\n", [[0, 1]]),
        ("anchor,positive,negative,group\na,b,z,1\nc,d,z,1\ne,f,z,\nf,g,z,\n", [[0, 1], [2, 3]]),
    ],
)
def test_triplets_that_share_a_text_or_a_group(tmp_path: Path, content: str, expected: list[list[int]]) -> None:
    path = tmp_path / "triplets.csv"
    path.write_text(content)
    assert together(text_set({"triplets": str(path)}, "simcse")) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # An anchor in another case, a text of no row, and the other positive of `a`.
        ("anchor,positive,negative\na,b,C\na,x,z\nc,d,x\n", [[2], [], [0, 1]]),
        ("anchor,positive,negative,group\na,b,d,1\nc,d,z,2\ne,f,B,1\n", [[1], [], [0, 2]]),
    ],
)
def test_a_hard_negative_belongs_to_the_rows_of_its_text(
    tmp_path: Path, content: str, expected: list[list[int]]
) -> None:
    path = tmp_path / "triplets.csv"
    path.write_text(content)
    batch = text_set({"triplets": str(path)}, "simcse").batch("text", np.arange(3), np.zeros(3, dtype=np.int64))
    assert batch.negative_ids_BK is not None
    found = [same_group(batch.ids_BK, ids[None]).flatten().nonzero().flatten() for ids in batch.negative_ids_BK]
    assert [rows.tolist() for rows in found] == expected


def test_scored_pairs_that_share_a_text(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("sentence1,sentence2,score,weight\na,b,5,1\nc,a,0,2\nd,e,2,1\n")
    rows = text_set({"scores": [{"path": str(path)}]}, "sts")
    assert together(rows) == [[0, 1]]
    assert rows.target_N is not None
    assert (rows.target_N.tolist(), rows.weight_N.tolist()) == (pytest.approx([1, 0, 0.4]), [1, 2, 1])
