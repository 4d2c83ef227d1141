from tests.images import fuzz_images


def test_no_damage_raises_another_error_or_takes_long():
    found, _ = fuzz_images.run(300, seed=2)
    assert found["read"] > 50 and found["refused"] > 50
