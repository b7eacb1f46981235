"""The transfer sets of SentEval: labelled sentences (MR, CR, SUBJ, MPQA, SST, TREC) and labelled pairs (MRPC).

A line that cannot be used costs itself and comes back as a bad row. Some files are latin-1, others UTF-8.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dalr.data.annotated import read_plain_lines, refuse_nothing_usable
from dalr.data.records import BadRow
from dalr.errors import DataError, shortened

TRANSFER_TASKS = ("MR", "CR", "SUBJ", "MPQA", "SST2", "SST5", "TREC", "MRPC")
# Class 0 in the first file, class 1 in the second.
TWO_FILES = {
    "MR": ("MR/rt-polarity.neg", "MR/rt-polarity.pos"),
    "CR": ("CR/custrev.neg", "CR/custrev.pos"),
    "SUBJ": ("SUBJ/subj.objective", "SUBJ/subj.subjective"),
    "MPQA": ("MPQA/mpqa.neg", "MPQA/mpqa.pos"),
}
QUESTIONS = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
# One line into its sentences and the number of its class; ValueError gives the reason why it cannot be used.
Parse = Callable[[str], tuple[tuple[str, ...], int]]


@dataclass(frozen=True)
class LabelledPart:
    """One part of a transfer set: N rows of one sentence, or of two (`second` is empty where there is one)."""

    first: list[str] = field(default_factory=list)
    second: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class TransferSet:
    """A task with its parts: `all` (to be cross-validated), or `train`, `test` and for some `dev`.

    `bad` holds the rows that cannot be used; their `file` is the path below the folder of all sets.
    """

    task: str
    parts: dict[str, LabelledPart]
    bad: list[BadRow]

    def sentences(self) -> list[str]:
        """The distinct sentences, in order of first use."""
        return list(
            dict.fromkeys(text for part in self.parts.values() for side in (part.first, part.second) for text in side)
        )


def read_transfer_set(folder: str | Path, task: str) -> TransferSet:
    """One of `TRANSFER_TASKS` from the folder that holds MR, CR, SUBJ, MPQA, SST, TREC and MRPC.

    Raises DataError for a file that is missing, has no usable line, or lacks one of the classes in what is trained on.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder; expected the transfer sets of SentEval (MR, CR, SUBJ, MPQA, SST, …)")
    bad: list[BadRow] = []
    if task in TWO_FILES:
        whole = LabelledPart()
        for label, name in enumerate(TWO_FILES[task]):
            one = _read(folder, name, lambda line, label=label: ((line,), label), bad)  # type: ignore[misc]
            whole.first.extend(one.first)
            whole.labels.extend(one.labels)
        return TransferSet(task, {"all": whole}, bad)
    files, parse, classes, heading = _fixed_split(task)
    parts = {part: _read(folder, name, parse, bad, heading) for part, name in files.items()}
    lacking = sorted(set(range(classes)) - set(parts["train"].labels))
    if lacking:
        raise DataError(f"{folder / files['train']}: has no row of the class {lacking[0]}; expected {classes} classes")
    return TransferSet(task, parts, bad)


def _fixed_split(task: str) -> tuple[dict[str, str], Parse, int, bool]:
    """The files of each part, how a line is read, the number of classes, and whether there is a heading."""
    if task in ("SST2", "SST5"):
        kind, classes = ("binary", 2) if task == "SST2" else ("fine", 5)
        files = {part: f"SST/{kind}/sentiment-{part}" for part in ("train", "dev", "test")}
        return files, _class_last if task == "SST2" else _class_first, classes, False
    if task == "TREC":
        return {"train": "TREC/train_5500.label", "test": "TREC/TREC_10.label"}, _question, len(QUESTIONS), False
    if task == "MRPC":
        return {part: f"MRPC/msr_paraphrase_{part}.txt" for part in ("train", "test")}, _paraphrase, 2, True
    raise ValueError(f"task {task!r}; expected one of {', '.join(TRANSFER_TASKS)}")


def _read(folder: Path, name: str, parse: Parse, bad: list[BadRow], heading: bool = False) -> LabelledPart:
    part = LabelledPart()
    refused: list[BadRow] = []
    for number, line in enumerate(read_plain_lines(folder / name), start=1):
        if heading and number == 1:
            continue
        try:
            sentences, label = parse(line)
            if not all(text.strip() for text in sentences):
                raise ValueError("has an empty sentence")
        except ValueError as error:
            refused.append(BadRow(name, number, str(number), str(error)))
            continue
        part.first.append(sentences[0].strip())
        part.second.extend(text.strip() for text in sentences[1:])
        part.labels.append(label)
    if not part.labels:
        raise refuse_nothing_usable(folder / name, "labelled sentence", refused)
    bad.extend(refused)
    return part


def _class_last(line: str) -> tuple[tuple[str, ...], int]:
    text, tab, label = line.rpartition("\t")
    if not tab:
        raise ValueError("has no tab; expected a sentence, a tab and its class")
    return (text,), _class_in(label, 2)


def _class_first(line: str) -> tuple[tuple[str, ...], int]:
    label, *text = line.split(maxsplit=1) or [""]
    if not text:
        raise ValueError("expected a class and a sentence")
    return (text[0],), _class_in(label, 5)


def _question(line: str) -> tuple[tuple[str, ...], int]:
    label, _, text = line.partition(" ")
    coarse, colon, _ = label.partition(":")
    if not colon or coarse not in QUESTIONS:
        raise ValueError(f"expected CLASS:subclass and a question, the class one of {', '.join(QUESTIONS)}")
    return (text,), QUESTIONS.index(coarse)


def _paraphrase(line: str) -> tuple[tuple[str, ...], int]:
    cells = line.split("\t")
    if len(cells) < 5:
        raise ValueError("expected five tab-separated columns: the class, two ids, two sentences")
    return (cells[3], cells[4]), _class_in(cells[0], 2)


def _class_in(cell: str, classes: int) -> int:
    if cell.strip() not in {str(number) for number in range(classes)}:
        raise ValueError(f"the class {shortened(cell.strip(), 20)!r} is not one of 0 to {classes - 1}")
    return int(cell)
