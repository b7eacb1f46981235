"""What an audit keeps for the next one: what judged the pairs, what was found of each, and what people decided.

state/judged.parquet    a line a judged pair: its content, scores, probability
state/judge.json        what made them, and the calibration
state/fold-N.safetensors  the heads of each fold
decisions.jsonl         a line a decision, appended and never rewritten; the last one of a row holds
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dalr.catalogue.audit.evidence import Judge, Judgement
from dalr.catalogue.audit.mismatch import Calibration
from dalr.encoders.tower import read_weights, save_weights
from dalr.errors import ModelError, UsageError, one_line
from dalr.files import hash_json, write_json

STATE, DECISIONS = "state", "decisions.jsonl"
FORMAT = 1
Choice = Literal["right", "wrong", "fix"]
CHOICES: tuple[Choice, ...] = ("right", "wrong", "fix")


def row_content(text_key: str | None, image_key: str | None, group: str | None) -> str:
    """What a row says, as 32 hex digits: a decision or judgement holds as long as it is the same."""
    return hash_json([text_key, image_key, group])


@dataclass(frozen=True)
class Memory:
    """What was found of pairs, by their content, and what judged them. `made_by` is a hash of settings and model."""

    made_by: str
    contents: list[str]
    judge: Judge
    judgement: Judgement

    def save(self, folder: Path) -> None:
        """Write it below the audit's folder; `judge.json` last, without which nothing is read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        state = folder / STATE
        state.mkdir(parents=True, exist_ok=True)
        (state / "judge.json").unlink(missing_ok=True)
        found = self.judgement
        columns: dict[str, Any] = {"content": self.contents, "fit": found.fit, "probability": found.probability}
        columns |= {"near_caption": found.nearness[0], "near_picture": found.nearness[1]}
        columns["better"] = [None if row < 0 else self.contents[row] for row in found.better.tolist()]
        columns |= {f"raw_{name}": values for name, values in found.raw.items()}
        pq.write_table(pa.table(columns), state / "judged.parquet")
        for number, heads in enumerate(self.judge.heads):
            save_weights(state / f"fold-{number}.safetensors", heads)
        values = {"format": FORMAT, "made_by": self.made_by, "folds": len(self.judge.heads)}
        write_json(state / "judge.json", {**values, "calibration": self.judge.calibration.as_json()})

    @classmethod
    def load(cls, folder: Path) -> "Memory | None":
        """What the last audit into this folder kept; None where there is nothing whole."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        state = folder / STATE
        try:
            values = json.loads((state / "judge.json").read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                return None
            calibration = Calibration.from_json(values["calibration"])
            heads = [read_weights(state / f"fold-{number}.safetensors") for number in range(values["folds"])]
            table = pq.read_table(state / "judged.parquet").to_pydict()
            contents = table["content"]
            place = {content: row for row, content in enumerate(contents)}
            judgement = Judgement(
                {name: np.array(table[f"raw_{name}"], np.float64) for name in calibration.odds},
                np.array(table["fit"], np.float64),
                np.array(table["probability"], np.float64),
                np.array([place.get(content, -1) for content in table["better"]], np.int64),
                np.array([table["near_caption"], table["near_picture"]], np.float64),
            )
        except (OSError, ValueError, KeyError, TypeError, ModelError, pa.ArrowException):
            return None
        return cls(values["made_by"], contents, Judge(calibration, heads), judgement)

    def carried(self, contents: Sequence[str]) -> tuple[Judgement, list[int]]:
        """(What was found of these pairs, the places of those that are not known)."""
        place = {content: row for row, content in enumerate(self.contents)}
        found = Judgement.empty(len(contents), self.judge.kinds)
        here = {content: row for row, content in enumerate(contents)}
        known = [(row, place[content]) for row, content in enumerate(contents) if content in place]
        if known:
            rows, old = (np.array(side, np.int64) for side in zip(*known, strict=True))
            was = self.judgement
            better = [here.get(self.contents[row], -1) if row >= 0 else -1 for row in was.better[old].tolist()]
            found.put(
                rows,
                Judgement(
                    {name: values[old] for name, values in was.raw.items()},
                    was.fit[old],
                    was.probability[old],
                    np.array(better, np.int64),
                    was.nearness[:, old],
                ),
            )
        return found, [row for row, content in enumerate(contents) if content not in place]


@dataclass(frozen=True)
class Decision:
    """What a person said of a row: its caption is `right`, `wrong`, or to be `fix`ed to `text`."""

    key: str
    content: str
    choice: Choice
    text: str | None = None


def record_decision(folder: str | Path, decision: Decision) -> None:
    """Append a decision and see it onto the disk. UsageError where that is not possible."""
    if decision.choice not in CHOICES or (decision.choice == "fix") != (decision.text is not None):
        raise UsageError(f"decision {decision.choice!r}: expected right, wrong, or fix with the text to put there")
    line = (json.dumps(asdict(decision), ensure_ascii=False) + "\n").encode()
    path = Path(folder) / DECISIONS
    try:
        with open(path, "ab+") as stream:
            # A crash may have left half a line, which must not swallow this one.
            torn = stream.seek(0, os.SEEK_END) and stream.seek(-1, os.SEEK_END) and stream.read(1) != b"\n"
            stream.write(b"\n" + line if torn else line)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise UsageError(f"{path}: the decision cannot be saved ({one_line(error)})") from None


def read_decisions(folder: str | Path) -> tuple[dict[str, Decision], int]:
    """(The last decision by row key, how many lines cannot be read)."""
    path = Path(folder) / DECISIONS
    try:
        lines = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return {}, 0
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({one_line(error)})") from None
    found: dict[str, Decision] = {}
    broken = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            decision = _decision(json.loads(line))
        except (ValueError, TypeError, KeyError):
            # A crash may leave half a line.
            broken += 1
            continue
        found[decision.key] = decision
    return found, broken


def _decision(values: Mapping[str, Any]) -> Decision:
    if values["choice"] not in CHOICES or (values["choice"] == "fix") != isinstance(values.get("text"), str):
        raise ValueError("no decision")
    return Decision(str(values["key"]), str(values["content"]), values["choice"], values.get("text"))
