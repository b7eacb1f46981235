"""Language models: a transformers network with its head, which sees both ways or only back as it is told.

One network serves two objectives: causal language modelling (each place predicts the next token and sees what is
before it) and masked language modelling (masked places predict themselves and see all), switched by an additive mask.

Legend: B rows · L tokens · H width · V vocabulary · M places that are predicted.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dalr.encoders import TextEncoder, resolve_name
from dalr.encoders import transformers_models as library
from dalr.encoders.attention import CANNOT_SWITCH, additive_mask, sees_future
from dalr.encoders.names import read_json
from dalr.encoders.tokens import TransformersTokenizer
from dalr.encoders.transformers_text import TransformersText, load_tokenizer, position_offset
from dalr.errors import ConfigError, ModelError
from dalr.files import write_json

LM_FOLDER, TRAINING_FILE = "lm", "training.json"


class LanguageModel(nn.Module):
    """A transformers `…ForMaskedLM` or `…ForCausalLM` whose attention follows the mask that it is given.

    Args:
        network: the model with its head.
        tokenizer: its transformers tokenizer.
        predicts_next: a masked token is predicted by the place before it (GPT-BERT), not by its own.
        trained_for: `causal`, `masked` or both; None is what its class is for.

    Raises ConfigError, naming the architecture, where the mask is not followed or the head stands not alone.
    """

    def __init__(
        self, network: Any, tokenizer: Any, *, predicts_next: bool = False, trained_for: tuple[str, ...] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.predicts_next = predicts_next
        self.trained_for = trained_for or (
            ("masked",) if type(network).__name__.endswith("ForMaskedLM") else ("causal",)
        )
        self._head = [child for child in network.children() if child is not network.base_model]
        self._takes_positions = "position_ids" in inspect.signature(network.base_model.forward).parameters
        self._check()

    @property
    def body(self) -> Any:
        """The network without its head."""
        return self.network.base_model

    @property
    def own_objective(self) -> str:
        """`masked` or `causal`: what the network's class is made for."""
        return "masked" if type(self.network).__name__.endswith("ForMaskedLM") else "causal"

    @property
    def kind(self) -> str:
        """The architecture's name, such as `bert` or `llama`."""
        return str(self.network.config.model_type)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.network.parameters()).device
        return device

    def states(self, input_ids_BL: Tensor, segments_BL: Tensor, causal: bool | Tensor) -> Tensor:
        """h_BLH of the last layer. `segments` numbers the texts packed into a row from 1, 0 is padding.

        A token sees those of its own segment; with `causal` (of all rows, or one a row) only those before it and
        itself. Positions count from each segment's beginning.
        """
        extra = {}
        if self._takes_positions:
            extra["position_ids"] = positions(segments_BL) + position_offset(self.network.config)
        mask_B1LL = additive_mask(segments_BL, causal, self.network.dtype)
        h_BLH: Tensor = self.body(input_ids=input_ids_BL, attention_mask=mask_B1LL, **extra).last_hidden_state
        return h_BLH

    def logits(self, h_MH: Tensor) -> Tensor:
        """States of any places → (M, V)."""
        for part in self._head:
            h_MH = part(h_MH)
        return h_MH

    def save(self, folder: str | Path, training: dict[str, Any] | None = None) -> None:
        """Write a transformers folder (weights with head, tokenizer), and what it was trained on as `training.json`."""
        folder = Path(folder)
        with library.quiet():
            self.network.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        own = {"predicts_next": self.predicts_next, "trained_for": list(self.trained_for)}
        write_json(folder / TRAINING_FILE, {**own, **(training or {})})

    def _check(self) -> None:
        kernel = self.network.config._attn_implementation
        if kernel not in (None, *library.KERNELS):
            raise ConfigError(
                f"model: the attention '{kernel}' of this {self.kind} does not follow a mask over pairs of tokens, by "
                f"which causal and masked language modelling switch; build it with {' or '.join(library.KERNELS)}"
            )
        ids_BL = torch.tensor([[1, 2, 3]], device=self.device)
        was_training = self.training
        self.eval()
        try:
            reason = "its attention does not follow the mask"
            switches = not sees_future(self, self._seen(causal=True)) and sees_future(self, self._seen(causal=False))
            if switches:
                reason = "its head cannot be told from its body"
                with torch.inference_mode():
                    h_BLH = self.states(ids_BL, torch.ones_like(ids_BL), False)
                    mask = additive_mask(torch.ones_like(ids_BL), False, self.network.dtype)
                    whole = self.network(input_ids=ids_BL, attention_mask=mask).logits
                    switches = torch.allclose(self.logits(h_BLH), whole, rtol=1e-3, atol=1e-4)
        except CANNOT_SWITCH:
            switches, reason = False, "it takes no mask over pairs of tokens"
        finally:
            self.train(was_training)
        if not switches:
            raise ConfigError(
                f"model: the architecture '{self.kind}' cannot switch between causal and masked language modelling "
                f"({reason}); BERT, RoBERTa, ModernBERT, ELECTRA, GPT-2, Llama and Qwen can"
            )

    def _seen(self, causal: bool) -> Callable[[dict[str, Tensor]], Tensor]:
        return lambda tokens: self.states(tokens["input_ids"], tokens["attention_mask"], causal)


def positions(segments_BL: Tensor) -> Tensor:
    """How far each token stands from the beginning of its segment, int64 (B, L)."""
    places_BL = torch.arange(segments_BL.shape[1], device=segments_BL.device).expand_as(segments_BL)
    first_BL = torch.ones_like(segments_BL, dtype=torch.bool)
    first_BL[:, 1:] = segments_BL[:, 1:] != segments_BL[:, :-1]
    starts_BL = torch.where(first_BL, places_BL, 0).cummax(dim=1).values
    return places_BL - starts_BL


def special_edges(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens before and behind each text; the end-of-text token where a tokenizer adds none itself."""
    before, after = TransformersTokenizer(tokenizer).edges()
    end = tokenizer.eos_token_id
    return (before, after) if before or after or end is None else ([], [end])


def load_language_model(name: str) -> LanguageModel:
    """The language model behind a name: a run folder of `dalr train` on text, or any transformers folder with a head.

    Raises ModelError for one without a head, and as `resolve_name` does; ConfigError as `LanguageModel` does.
    """
    folder = _folder(name)
    network, lacking = library.load_with_head(folder, library.load_config(folder))
    if lacking:
        raise ModelError(
            f"{folder}: has no language-model head (it lacks '{lacking[0]}'); name the folder of a "
            f"{type(network).__name__}, or a run that trained one"
        )
    about = _training(folder)
    return LanguageModel(
        network,
        load_tokenizer(folder),
        predicts_next=bool(about.get("predicts_next", False)),
        trained_for=tuple(about.get("trained_for", ())) or None,
    ).eval()


def with_head(encoder: TextEncoder, name: str) -> LanguageModel:
    """The network of a text tower of that name under its folder's head, or a fresh one (torch's generator).

    The tower's own weights are used, and trained. Raises ConfigError for a tower that is not of transformers.
    """
    backbone, tokenizer = encoder.backbone, encoder.tokenizer
    if not isinstance(backbone, TransformersText) or not isinstance(tokenizer, TransformersTokenizer):
        raise ConfigError(f"model.name: {name} is not of transformers; language modelling needs such an encoder")
    folder = _folder(name)
    network, _ = library.load_with_head(folder, library.load_config(folder))
    setattr(network, network.base_model_prefix, backbone.model)
    network.config = backbone.model.config
    network.tie_weights()
    return LanguageModel(network, tokenizer.tokenizer, predicts_next=bool(_training(folder).get("predicts_next")))


def _training(folder: Path) -> dict[str, Any]:
    """What a language model that was trained here was trained on; empty for any other."""
    return read_json(folder / TRAINING_FILE) if (folder / TRAINING_FILE).is_file() else {}


def _folder(name: str) -> Path:
    """The transformers folder behind a name: of a run, the one that holds the head, if there is one."""
    found = resolve_name(name)
    if found.library not in ("transformers", "sentence_transformers", "tower", "dual") or found.folder is None:
        raise ModelError(
            f"{name}: not a language model; expected a folder or hub name of transformers, or a run folder"
        )
    if found.library == "dual":
        return found.folder / (LM_FOLDER if (found.folder / LM_FOLDER).is_dir() else "text")
    return found.folder
