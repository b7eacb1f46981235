"""Features from below the last layer.

Invariants: `stages` puts the mean-pooled maps of timm's stages behind the network's own features, which stay as they
are; `embeddings_mean` is the mean of the token embeddings over the text's own tokens; both survive saving.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalr.encoders import (
    ImageConfig,
    NewTextConfig,
    TextConfig,
    build_image_encoder,
    build_text_encoder,
    load_image_encoder,
    load_text_encoder,
)
from dalr.errors import ConfigError

PHOTO = Image.effect_noise((64, 64), 80).convert("RGB")


def test_stages_stand_behind_the_own_features_and_survive_saving(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    encoder = build_image_encoder(ImageConfig(name="timm:test_resnet", pretrained=False, stages=[1, 3]))
    own = encoder.network.model
    pixels = encoder.preprocess(PHOTO)[None]
    with torch.inference_mode():
        maps = own.forward_intermediates(pixels, indices=[1, 3], intermediates_only=True)
        expected = torch.cat([own(pixels), *(m.mean((2, 3)) for m in maps)], dim=1)
        found = encoder(pixels)
    torch.testing.assert_close(found, expected)
    channels = [stage["num_chs"] for stage in timm.create_model("test_resnet").feature_info]
    assert encoder.width == own.num_features + channels[1] + channels[3]
    encoder.save(tmp_path)
    again = load_image_encoder(tmp_path)
    np.testing.assert_array_equal(again.encode([PHOTO]), encoder.encode([PHOTO]))
    assert again.fingerprint() == encoder.fingerprint()
    plain = build_image_encoder(ImageConfig(name="timm:test_resnet", pretrained=False))
    assert plain.fingerprint() != encoder.fingerprint()


def test_stages_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match="has the stages 0 to"):
        build_image_encoder(ImageConfig(name="timm:test_resnet", pretrained=False, stages=[99]))
    with pytest.raises(ConfigError, match="only timm"):
        build_image_encoder(ImageConfig(name="torchvision:resnet18", pretrained=False, stages=[1]))


def test_embeddings_mean_beside_mean(tmp_path: Path) -> None:
    torch.manual_seed(0)
    new = NewTextConfig(layers=1, width=16, heads=2, vocab_size=100, max_length=12)
    texts = ["a red cup", "cup", ""]
    encoder = build_text_encoder(TextConfig(name="new", pooling=["mean", "embeddings_mean"], new=new), texts)
    found = encoder.encode(texts)
    assert found.shape == (3, 32)
    for text, row in zip(texts, found, strict=True):
        tokens = encoder.collate(encoder.tokenize([text]))
        with torch.inference_mode():
            output = encoder.backbone.model(**tokens, output_hidden_states=True)
        expected = torch.cat([output.last_hidden_state.mean(1), output.hidden_states[0].mean(1)], dim=1)
        np.testing.assert_allclose(row, expected[0].numpy(), atol=1e-6)
    encoder.save(tmp_path)
    np.testing.assert_array_equal(load_text_encoder(tmp_path).encode(texts), found)
