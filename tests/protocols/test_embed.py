import numpy as np
import pytest
import torch

from gessl.protocols.embed import embed, frozen, load_images, position_tensor

CPU = torch.device("cpu")


def test_features_are_those_of_each_image_alone(encoder, images):
    found = embed(encoder, images, batch=64, device=CPU)
    assert found.shape == (240, 32)
    assert found.dtype == torch.float32
    for i in (0, 63, 64, 239):
        pixels = torch.tensor(images[i].tolist(), dtype=torch.float64) / 255
        with torch.no_grad():
            expected = encoder.double()(pixels[None])[0]
            encoder.float()
        torch.testing.assert_close(found[i].double(), expected, rtol=1e-4, atol=1e-5)


def test_batch_size_changes_rounding_only(encoder, images):
    whole, pieces = (embed(encoder, images, batch=batch, device=CPU) for batch in (512, 7))
    torch.testing.assert_close(whole, pieces)


def test_images_come_from_a_memory_map(encoder, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert torch.equal(embed(encoder, mapped, batch=50, device=CPU), embed(encoder, images, batch=50, device=CPU))
    found = load_images(mapped, torch.tensor([[3, 0]]))
    assert found.shape == (1, 2, 1, 8, 8)
    np.testing.assert_array_equal(found[0, 0], images[3].astype(np.float32) / np.float32(255))


def test_features_can_enter_a_graph(encoder, images):
    features = embed(encoder, images, batch=512, device=CPU)
    head = torch.nn.Linear(32, 2)
    head(features).sum().backward()
    assert not features.requires_grad


def test_positions_of_any_kind_become_indices():
    for positions in (np.array([[2, 1]], dtype=np.uint32), np.arange(3)[::-1], [0, 5]):
        found = position_tensor(positions, CPU)
        assert found.dtype == torch.int64
        np.testing.assert_array_equal(found, positions)


def test_frozen_turns_eval_mode_on_and_accepts_an_untouched_encoder(encoder, images):
    encoder.train()
    with frozen(encoder) as held:
        embed(held, images, batch=100, device=CPU)
    assert not encoder.training


@pytest.mark.parametrize("change", ["buffer", "parameter"])
def test_frozen_notices_one_changed_bit(encoder, images, change):
    with pytest.raises(RuntimeError, match="changed during evaluation"), frozen(encoder):
        if change == "buffer":
            encoder.train()
            encoder(load_images(images, torch.arange(9)))
        else:
            with torch.no_grad():
                encoder[0].bias[0] = -encoder[0].bias[0]


def test_frozen_notices_a_buffer_that_is_not_saved(encoder):
    encoder.register_buffer("queue", torch.zeros(3), persistent=False)
    with pytest.raises(RuntimeError, match="queue changed during evaluation"), frozen(encoder):
        encoder.queue[1] = 1


def test_frozen_notices_what_is_added_and_what_is_left_in_train_mode(encoder):
    with pytest.raises(RuntimeError, match="memory changed during evaluation"), frozen(encoder):
        encoder.register_buffer("memory", torch.zeros(1))
    with pytest.raises(RuntimeError, match="left in train mode"), frozen(encoder):
        encoder[1].train()
