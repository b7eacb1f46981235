"""Language modelling as `dalr train` runs it: packed text, a network with its head, a schedule, the common trainer."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dalr.antlm.batches import Labeller, LanguageData
from dalr.antlm.config import LanguageConfig, LanguageNetwork
from dalr.antlm.documents import Documents, prepare_documents
from dalr.antlm.held_out import figure_names, held_out_figures
from dalr.antlm.masking import Vocabulary
from dalr.antlm.objective import LanguageModelling
from dalr.antlm.packing import pack_text
from dalr.antlm.presets import NetworkConfig, build_network
from dalr.antlm.schedule import Phase, Timeline, parse_schedule, timeline
from dalr.encoders import TextConfig, TextEncoder, build_text_encoder, resolve_name
from dalr.encoders.new_tokenizer import TokenizerConfig, train_tokenizer
from dalr.encoders.text_parts import TextParts, TextSpec
from dalr.encoders.tokens import TransformersTokenizer
from dalr.encoders.transformers_text import TransformersText, load_tokenizer, position_limit
from dalr.errors import ConfigError
from dalr.files import hash_json, made_once, new_folder
from dalr.lm import LM_FOLDER, LanguageModel, with_head
from dalr.model import DualEncoder, ModelConfig
from dalr.run.assembly import Plan
from dalr.run.training import RunResult, carry_out
from dalr.schedule import Restarts
from dalr.train_config import TrainConfig

NEW_LENGTH = 512


def run_language_modelling(
    config: LanguageConfig,
    out: str | Path,
    *,
    progress: Callable[[dict[str, Any]], None] | None = None,
    dry_run: bool = False,
) -> RunResult:
    """Train a language model into the run folder `out`, from where an earlier run with the same config stopped.

    Beside the model, which is a text encoder like any other, `out/lm` holds the network with its head. Arguments and
    errors as those of `run_training`.
    """
    return carry_out(config, Path(out), partial(assemble_language, config), progress=progress, dry_run=dry_run)


def assemble_language(config: LanguageConfig) -> Plan[LanguageData]:
    """Read and pack the text, build the network and its batches; the same config gives the same plan."""
    documents = prepare_documents(config.data, config.leaks)
    phases = parse_schedule(config.schedule)
    torch.manual_seed(config.train.seed)
    model, language_model = build_language_model(config.model, documents, phases)
    limit = position_limit(language_model.network.config)
    if limit is not None and config.data.length > limit:
        raise ConfigError(f"data.length: {config.data.length} is more than the {limit} tokens of the network")
    tokenizer = language_model.tokenizer
    # A model that is never masked is still measured so, where it can be.
    words = Vocabulary.of(tokenizer) if masks(phases) or tokenizer.mask_token_id is not None else None
    labeller = Labeller(words, config.masking, language_model.predicts_next)
    pack = partial(pack_text, documents, tokenizer=tokenizer, length=config.data.length, packing=config.data.packing)
    text = pack("train")
    train, plan = settle(config, len(text))
    data = LanguageData(
        text,
        batch_size=train.batch_size // train.accumulate,
        seed=train.seed,
        timeline=plan,
        labeller=labeller,
        mix_causal=config.mix_causal,
        accumulate=train.accumulate,
    )
    objective = LanguageModelling(language_model)
    dev = pack("dev") if config.data.dev else None
    measured = figure_names(labeller) if dev is not None else ()
    train.check_measured(measured, "set data.dev above 0")

    def evaluate(_: DualEncoder) -> dict[str, float]:
        assert dev is not None
        return held_out_figures(language_model, dev, labeller, config.evaluation.rows)

    about = {"schedule": config.schedule, "unit": config.unit, "steps": plan.steps, "text": documents.counts}
    return Plan(
        model,
        objective,
        data,
        train,
        evaluate if dev is not None else None,
        None,
        {"model": model.fingerprint("text"), "text": text.fingerprint},
        len(text),
        documents.bad,
        leaks=documents.leaks,
        save=lambda out: save_language_model(language_model, out, about),
        restarts=Restarts(plan.starts, rate=config.rate == "phase", optimizer=config.optimizer == "reset"),
    )


def settle(config: LanguageConfig, rows: int) -> tuple[TrainConfig, Timeline]:
    """The training config with the schedule's steps and the rates of network and head, and the schedule in steps."""
    train = config.train
    text_lr = train.text_lr if "text_lr" in train.model_fields_set else train.lr
    if "image_lr" in train.model_fields_set:
        raise ConfigError("train.image_lr: a language model has no image tower; leave it out")
    given = train.model_fields_set & {"epochs", "steps"}
    whole: float | None = None
    if "steps" in given and train.steps is not None:
        whole = train.steps if config.unit == "step" else train.steps * train.batch_size / rows
    elif "epochs" in given:
        whole = train.epochs if config.unit == "epoch" else train.epochs * rows / train.batch_size
    plan = timeline(parse_schedule(config.schedule), config.unit, rows / train.batch_size, whole)
    return train.model_copy(update={"steps": plan.steps, "text_lr": text_lr}), plan


def masks(phases: Sequence[Phase]) -> bool:
    """Whether any phase masks tokens, for which a network has to look ahead."""
    return any(phase.kind != "CLM" for phase in phases)


def build_language_model(
    config: LanguageNetwork, documents: Documents, phases: Sequence[Phase]
) -> tuple[DualEncoder, LanguageModel]:
    """The text tower in training, and the language model around its network.

    A decoder that learns to look ahead does so as an encoder too.
    """
    if config.name is not None:
        text = TextConfig(
            name=config.name,
            train="full",
            max_length=config.max_length,
            dropout=config.dropout,
            attention="bidirectional" if masks(phases) else None,
        )
        encoder = build_text_encoder(text)
        language_model = with_head(encoder, config.name)
    else:
        text = TextConfig(name="new", train="full", max_length=config.max_length or NEW_LENGTH)
        encoder, language_model = new_language_model(config, documents, masks(phases))
    # A model that has learnt to predict a masked token from the place before goes on so.
    language_model.predicts_next |= any(phase.kind == "MIX" for phase in phases)
    causal = ("causal",) if any(phase.kind != "MLM" for phase in phases) else ()
    language_model.trained_for = (*causal, *(("masked",) if masks(phases) else ()))
    return DualEncoder(ModelConfig(text=text), encoder, None).eval(), language_model


def new_language_model(
    config: LanguageNetwork, documents: Documents, looks_ahead: bool
) -> tuple[TextEncoder, LanguageModel]:
    """A fresh network with a tokenizer trained on the documents, or borrowed."""
    max_length = config.max_length or NEW_LENGTH
    if isinstance(config.tokenizer, str):
        tokenizer = _borrowed(config.tokenizer)
    else:
        tokenizer = trained_tokenizer(documents, config.tokenizer or TokenizerConfig(), max_length)
    new = config.new or NetworkConfig()
    if config.dropout is not None:
        new = new.model_copy(update={"dropout": config.dropout})
    network = build_network(new, tokenizer, max_length)
    spec = TextSpec(
        library="transformers",
        max_length=max_length,
        attention="bidirectional" if looks_ahead and new.preset == "babyllama" else "own",
    )
    backbone = TransformersText(network.base_model)
    backbone.bidirectional = spec.attention == "bidirectional"
    encoder = TextEncoder(TextParts(backbone, TransformersTokenizer(tokenizer), spec))
    encoder.train_mode = "full"
    return encoder, LanguageModel(network, tokenizer)


def trained_tokenizer(documents: Documents, config: TokenizerConfig, max_length: int) -> Any:
    """A tokenizer trained on the documents, or the one that the cache holds."""
    name = hash_json([documents.fingerprint, config.model_dump(mode="json"), max_length])
    folder = documents.folder.parent / f"tokenizer-{name}"
    made_once(folder, lambda fresh: train_tokenizer(documents, config, max_length).save_pretrained(fresh))
    return load_tokenizer(folder)


def save_language_model(language_model: LanguageModel, out: Path, about: dict[str, Any]) -> None:
    """Write the network with its head into the run folder, as transformers reads it."""
    with new_folder(out / LM_FOLDER) as temporary:
        language_model.save(temporary, about)


def _borrowed(name: str) -> Any:
    found = resolve_name(name)
    if found.folder is None:
        raise ConfigError(f"model.tokenizer: {name} is no folder or hub name with a tokenizer of transformers")
    folder = found.folder / "text" if found.library == "dual" else found.folder
    return load_tokenizer(folder)
