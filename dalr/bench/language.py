"""Language modelling: our loop against the trainer of transformers, with the same network, rows and batch."""

import tempfile
import time
from typing import Any

import numpy as np
import numpy.typing as npt


def transformers_loop(
    network: Any,
    tokenizer: Any,
    ids_NL: npt.NDArray[Any],
    segments_NL: npt.NDArray[Any],
    *,
    masked: bool,
    batch_size: int,
    steps: int,
    lr: float,
    share: float,
) -> float:
    """Seconds that transformers' Trainer takes for `steps` steps of one objective over packed rows.

    As its own examples do it: DataCollatorForLanguageModeling hides `share` of the tokens (or with `masked=False`
    labels them all), the network computes its own loss, and rows are told from padding, not from their neighbours.
    Nothing is logged, evaluated or saved.
    """
    from transformers import DataCollatorForLanguageModeling, PrinterCallback, Trainer, TrainingArguments

    rows = [
        {"input_ids": ids.astype(np.int64), "attention_mask": (segments != 0).astype(np.int64)}
        for ids, segments in zip(ids_NL, segments_NL, strict=True)
    ]
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=masked, mlm_probability=share)
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out,
            per_device_train_batch_size=batch_size,
            max_steps=steps,
            learning_rate=lr,
            use_cpu=next(network.parameters()).device.type == "cpu",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = Trainer(model=network.train(), args=arguments, train_dataset=rows, data_collator=collator)
        trainer.remove_callback(PrinterCallback)  # it would write on our stdout
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start
