"""Dropout policies of a text tower.

Invariants: a curriculum starts at 0, rises as 1 − e^(−γt) and ends, with the default γ, within e^(−10) of its own
rate, for every dropout layer and the rate that attention reads; standout keeps a unit with σ(αh + β), scales what it
keeps so that the mean stays, and does nothing in evaluation; with α = 0 it is standard dropout; a frozen tower has no
policy; a network without dropout refuses one by its key; a run with a curriculum resumes as if it had never stopped
(the rate is a function of the step).
"""

import math

import pytest
import torch
from torch import nn

from dalr.encoders import TextConfig, build_text_encoder
from dalr.encoders.dropout import DropoutConfig, Standout, apply_dropout
from dalr.errors import ConfigError
from tests.tiny_catalogue import TEXT

CORPUS = ["a red dress", "a blue lamp"]


def tower(train: str = "full", **policy: object) -> object:
    settings = TEXT.model_copy(update={"train": train, "dropout_policy": DropoutConfig.model_validate(policy)})
    return build_text_encoder(settings, CORPUS)


def test_a_curriculum_rises_to_the_rates_of_the_network() -> None:
    encoder = tower(policy="curriculum")
    layers = [module for module in encoder.modules() if isinstance(module, nn.Dropout)]
    assert len(layers) > 3  # embeddings, attention, both outputs
    rates = []
    for step in (0, 10, 50, 100):
        encoder.moving_dropout.set_step(step, 100)
        found = {layer.p for layer in layers}
        assert len(found) == 1
        rates.append(found.pop())
    assert rates == pytest.approx([0.1 * (1 - math.exp(-10 * share)) for share in (0, 0.1, 0.5, 1)])
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.1, abs=1e-5)


def test_gamma_and_attention_without_a_layer() -> None:
    class Attention(nn.Module):
        attention_dropout = 0.2

    network = nn.Sequential(nn.Dropout(0.4), Attention())
    moving = apply_dropout(network, DropoutConfig(policy="curriculum", gamma=0.01))
    moving.set_step(30, 10**6)
    share = 1 - math.exp(-0.3)
    assert network[0].p == pytest.approx(0.4 * share)
    assert network[1].attention_dropout == pytest.approx(0.2 * share)


def test_standout_keeps_large_units_more_often_and_the_mean() -> None:
    torch.manual_seed(0)
    layer = Standout(0.1, alpha=1.0, beta=None)
    for value in (-2.0, 0.0, 2.0):
        found = layer(torch.full((200_000,), value + 1e-9))
        kept = float((found != 0).float().mean())
        assert kept == pytest.approx(1 / (1 + math.exp(-(value + math.log(9)))), abs=0.005)
        assert float(found.mean()) == pytest.approx(value, abs=0.02)
    flat = Standout(0.3, alpha=0.0, beta=None)(torch.ones(200_000))
    assert float((flat == 0).float().mean()) == pytest.approx(0.3, abs=0.005)
    assert torch.equal(layer.eval()(torch.tensor([-9.0, 3.0])), torch.tensor([-9.0, 3.0]))


def test_standout_replaces_the_layers_of_a_tower() -> None:
    encoder = tower(policy="adaptive")
    assert {type(module) for module in encoder.modules() if isinstance(module, nn.Dropout)} == {Standout}
    tokens = encoder.collate(encoder.tokenize(["a red dress"]))
    encoder.train()
    assert not torch.equal(encoder(tokens), encoder(tokens))
    encoder.eval()
    plain = build_text_encoder(TEXT, CORPUS)
    plain.load_state_dict(encoder.state_dict())
    assert torch.equal(plain.eval()(tokens), encoder(tokens))


def test_a_frozen_tower_has_no_policy() -> None:
    assert tower("frozen", policy="curriculum").moving_dropout is None


def test_a_network_without_dropout_refuses() -> None:
    with pytest.raises(ConfigError, match=r"text\.dropout_policy"):
        apply_dropout(nn.Linear(2, 2), DropoutConfig(policy="adaptive"))


def test_lora_keeps_its_own_dropout() -> None:
    pytest.importorskip("peft")
    values = TEXT.model_dump() | {"train": "lora", "dropout_policy": {"policy": "adaptive"}, "lora": {"dropout": 0.2}}
    encoder = build_text_encoder(TextConfig.model_validate(values), CORPUS)
    own = [m for name, m in encoder.named_modules() if "lora_dropout" in name and isinstance(m, nn.Dropout)]
    assert own
    assert all(type(module) is nn.Dropout and module.p == 0.2 for module in own)
